//! Where the endpoint listens, and whom it answers there.

use redtail::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// `HOST:PORT` with an IP address or `localhost`, or a path, which has a slash in it.
    pub fn parse(text: &str) -> Result<Self> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let tcp = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        tcp.map(Self::Tcp).ok_or_else(|| {
            Error::usage(format!(
                "listen {text:?}: an address with its port is wanted, such as 127.0.0.1:9187, or the path of a Unix socket, such as ./redtail.sock"
            ))
        })
    }

    /// Whether only programs of this machine can reach it.
    pub fn is_here(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether this `Host` may be asked for here. A page of another site can make a browser send requests to this
    /// machine under a name of its own (DNS rebinding); only names that nobody else can give are answered.
    pub fn admits(&self, host: &str) -> bool {
        let Self::Tcp(_) = self else { return true };
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_with_its_port_or_a_path() {
        for good in
            ["127.0.0.1:9187", "[::1]:0", "localhost:9187", "0.0.0.0:1", "./redtail.sock", "/run/r.sock"]
        {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "9187", ":9187", "127.0.0.1", "example.org:80", "redtail.sock", "localhost:http"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        let here = |text| Address::parse(text).unwrap().is_here();
        assert!(
            here("127.0.0.2:1") && here("[::1]:1") && here("[::ffff:127.0.0.1]:1") && here("/run/r.sock")
        );
        assert!(!here("0.0.0.0:1") && !here("[::]:1") && !here("192.168.0.1:1"));
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let address = Address::parse("127.0.0.1:9187").unwrap();
        for good in ["127.0.0.1:9187", "127.0.0.1", "localhost:9187", "LOCALHOST", "[::1]:9187"] {
            assert!(address.admits(good), "{good}");
        }
        for wrong in [
            "",
            "example.org",
            "example.org:9187",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "[::1",
            "10.0.0.1",
        ] {
            assert!(!address.admits(wrong), "{wrong}");
        }
    }
}
