//! Where a server is: the forms of its URL that are taken, and what is wrong with the others.

use crate::error::{Error, Kind, Result};

/// Where requests go, without a slash at the end.
pub(super) fn parse(source: &str, insecure: bool) -> Result<String> {
    let Some((scheme, rest)) = source.split_once("://") else {
        return Err(Error::usage("source: not a URL"));
    };
    // Nothing behind this point repeats what was given before it is known to hold no secret.
    if rest.contains(['?', '#']) {
        return Err(Error::usage(format!(
            "source {scheme}://…: a query or fragment is not taken; give a token by --token-file or TURSO_AUTH_TOKEN"
        )));
    }
    if rest.contains('@') {
        return Err(Error::usage(format!(
            "source {scheme}://…: no user or password is taken; give a token by --token-file or TURSO_AUTH_TOKEN"
        )));
    }
    let rest = rest.trim_end_matches('/');
    let authority = rest.split('/').next().unwrap_or_default();
    let host = host_of(authority);
    if host.is_empty() || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::usage(format!(
            "source {source}: no host in it; give libsql://HOST, https://HOST or http://HOST:PORT"
        )));
    }
    match scheme {
        "libsql" | "https" => Ok(format!("https://{rest}")),
        "http" if insecure || is_loopback(host) => Ok(format!("http://{rest}")),
        "http" => Err(Error::usage(format!(
            "source {source}: http is taken for this machine alone, because a token would be readable on the way; \
             give https://, or --insecure"
        ))),
        _ => Err(Error::usage(format!(
            "source {scheme}://…: not a scheme that is known; give a path, file:, libsql://, https:// or http://"
        ))),
    }
}

/// Where a server that was reached at `of` wants a stream to go on. Its word must not send the token where the user's
/// would not.
pub(super) fn elsewhere(of: &str, named: &str, insecure: bool) -> Result<String> {
    parse(named, insecure)
        .ok()
        .filter(|url| url.starts_with("https://") || !of.starts_with("https://"))
        .ok_or_else(|| {
            Error::new(
                Kind::Source,
                "the server names an address for its stream that is not taken: https is wanted",
            )
        })
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// Whether requests to this URL stay on this machine.
pub(super) fn is_local(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    is_loopback(host_of(authority))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_not_send_the_token_over_http() {
        assert_eq!(elsewhere("https://a", "https://b.a/", false).unwrap(), "https://b.a");
        assert_eq!(
            elsewhere("http://127.0.0.1:1", "http://127.0.0.1:2", false).unwrap(),
            "http://127.0.0.1:2"
        );
        for named in ["http://b.a", "http://127.0.0.1:1", "https://u:CANARY@b", "b.a", ""] {
            let e = elsewhere("https://a", named, true).unwrap_err().to_string();
            assert!(e.contains("https is wanted") && !e.contains("CANARY"), "{e}");
        }
        assert!(elsewhere("http://127.0.0.1:1", "http://b.a", false).is_err());
    }

    #[test]
    fn urls_are_taken_or_refused_with_the_right_form() {
        assert_eq!(parse("libsql://a.example/", false).unwrap(), "https://a.example");
        assert_eq!(parse("http://127.0.0.1:80", false).unwrap(), "http://127.0.0.1:80");
        assert_eq!(parse("http://[::1]:80/db", false).unwrap(), "http://[::1]:80/db");
        assert_eq!(parse("http://a.example", true).unwrap(), "http://a.example");
        for (wrong, said) in [
            ("http://a.example", "--insecure"),
            ("ws://a.example", "not a scheme that is known"),
            ("https://", "no host"),
            ("libsql://a?authToken=CANARY", "--token-file"),
            ("https://u:CANARY@a", "--token-file"),
        ] {
            let e = parse(wrong, false).unwrap_err().to_string();
            assert!(e.contains(said) && !e.contains("CANARY"), "{e}");
        }
    }
}
