//! `completions` and `man`, from the definition of the command line.

use crate::args::Args;
use crate::{Exit, failure};
use clap::CommandFactory as _;
use redtail::Error;
use std::io::{self, Write as _};
use std::path::Path;

pub fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "redtail", &mut script);
    io::stdout().write_all(&script).map(|()| 0).map_err(|e| failure(&e))
}

pub fn man(dir: Option<&Path>) -> Exit {
    if let Some(dir) = dir {
        let wrong = |e| Error::usage(format!("folder {}: {e}", dir.display()));
        std::fs::create_dir_all(dir).map_err(wrong)?;
        return clap_mangen::generate_to(Args::command(), dir).map(|()| 0).map_err(wrong);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).render(&mut page).map_err(|e| failure(&e))?;
    io::stdout().write_all(&page).map(|()| 0).map_err(|e| failure(&e))
}
