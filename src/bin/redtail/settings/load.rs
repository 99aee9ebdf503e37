//! Where settings come from: a file, the environment, the command line.

use super::keys::{KEYS, Key};
use super::{Error, Path, PathBuf, Result, Settings, Table, Value};
use crate::args::{Args, Command};
use crate::{Exit, failure};
use std::io::Write as _;
use std::sync::OnceLock;

/// The file that is read when `--config` names none.
const DEFAULT_FILE: &str = "redtail.toml";

/// The command line of this process.
static GIVEN: OnceLock<Args> = OnceLock::new();

impl Settings {
    pub fn load(args: &Args) -> Result<Self> {
        let _ = GIVEN.set(args.clone());
        let mut settings = Self::new();
        let file = args.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|p| p.is_file()));
        if let Some(file) = file {
            settings.read(&file)?;
        }
        for key in &KEYS {
            let variable = key.variable();
            if let Ok(given) = std::env::var(&variable) {
                let value = format!("v = {given}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
                let value = value.unwrap_or(Value::String(given));
                (key.set)(&mut settings, &value)
                    .map_err(|want| Error::usage(format!("{variable}: {want}")))?;
            }
        }
        settings.source = args.source.clone().or(settings.source);
        settings.replica = args.replica.clone().or(settings.replica);
        settings.config.token_file = args.token_file.clone().or(settings.config.token_file);
        settings.config.insecure |= args.insecure;
        if let Command::Run(given) = &args.command {
            let endpoint = &mut settings.endpoint;
            endpoint.listen = given.at.clone().or(endpoint.listen.take());
            endpoint.token_file = given.token_file.clone().or(endpoint.token_file.take());
            endpoint.anywhere |= given.anywhere;
        }
        #[cfg(feature = "remote")]
        if let Ok(token) = std::env::var("TURSO_AUTH_TOKEN") {
            let token = redtail::Token::new(&token).map_err(|e| e.during("TURSO_AUTH_TOKEN"))?;
            settings.config.token = Some(token);
        }
        Ok(settings)
    }

    /// The same command line with what file and environment say now.
    pub fn again() -> Result<Self> {
        let args = GIVEN.get().ok_or_else(|| Error::usage("no settings were loaded yet"))?;
        Self::load(args)
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::usage(format!("config {shown}: {}", reason(&e))))?;
        self.parse(&text, &shown.to_string())
    }

    /// Prints everything that is in force, as a file that would say the same.
    pub fn show(&self) -> Exit {
        write!(std::io::stdout(), "{}", self.shown()).map(|()| 0).map_err(|e| failure(&e))
    }
}

impl Key {
    fn variable(&self) -> String {
        format!("REDTAIL_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// What is wrong, without the number of the error.
pub fn reason(e: &std::io::Error) -> String {
    if e.kind() == std::io::ErrorKind::NotFound { "no such file".to_owned() } else { e.to_string() }
}
