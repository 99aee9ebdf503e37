//! The command line. What it says on a wrong one is one line.

use crate::messages::Format;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed at work, or rows differ, or there is no such row; 2 wrong input; 130 told twice to \
end.";

/// Follows a libSQL database into an embedded redb file: exactly, and resumed after any crash.
#[derive(Parser, Clone, Debug)]
#[command(name = "redtail", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// The database to follow: a path, a file: URL, or a server's: libsql://, https://, http://
    #[arg(short, long, global = true, value_name = "SOURCE", env = "REDTAIL_SOURCE")]
    pub source: Option<String>,
    /// The replica's file
    #[arg(short, long, global = true, value_name = "REPLICA", env = "REDTAIL_REPLICA")]
    pub replica: Option<PathBuf>,
    /// The configuration [default: redtail.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "REDTAIL_CONFIG")]
    pub config: Option<PathBuf>,
    /// A file with the server's token; else the environment's is taken
    #[arg(long, global = true, value_name = "FILE", env = "REDTAIL_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Speak http to other machines too: whoever stands between can read the token and the rows
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How messages are written to stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        env = "REDTAIL_LOG_FORMAT"
    )]
    pub log_format: Format,
}

/// The endpoint of `run`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Listen {
    /// Serve a page, /metrics, /status and rows over HTTP: HOST:PORT, or the path of a Unix socket
    #[arg(long = "listen", value_name = "ADDR|PATH", env = "REDTAIL_LISTEN")]
    pub at: Option<String>,
    /// Let other machines read there too, given the token
    #[arg(long = "listen-anywhere")]
    pub anywhere: bool,
    /// A file with the token that who reads there must give
    #[arg(
        id = "listen_token_file",
        long = "listen-token-file",
        value_name = "FILE",
        env = "REDTAIL_LISTEN_TOKEN_FILE"
    )]
    pub token_file: Option<PathBuf>,
}

#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show the whole thing: make a database, write to it, follow it, verify
    Demo {
        /// Where the files go; they are left to play with
        #[arg(long, default_value = "redtail-demo")]
        dir: PathBuf,
        /// How long to write
        #[arg(long, default_value_t = 5, value_name = "N")]
        seconds: u64,
    },
    /// Install or repair capture in the source; list captured and skipped tables
    Init {
        /// Print the SQL, run nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Follow the source until stopped by SIGINT or SIGTERM
    Run(Listen),
    /// Bring the replica up to the source's head as it is now, then exit
    Sync,
    /// Say where the replica stands
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Every second, until interrupted
        #[arg(short, long)]
        watch: bool,
    },
    /// Compare source and replica in one snapshot; exit 1 if they differ
    Verify {
        /// The tables to compare [default: all]
        tables: Vec<String>,
        /// Mend the differences
        #[arg(long)]
        repair: bool,
        /// Look for rows whose foreign keys lead nowhere in the replica, instead
        #[arg(long, conflicts_with_all = ["repair", "tables"])]
        references: bool,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Follow what changes in the replica, as JSON lines in Debezium's envelope; at least once
    Changes {
        /// Go on behind this position, which a line has told as `position` [default: from now on]
        #[arg(long, value_name = "POSITION")]
        from: Option<String>,
        /// Begin with every row that is there, as op `r`
        #[arg(long, conflicts_with = "from")]
        snapshot: bool,
        /// Every value as {"type":…,"value":…}
        #[arg(long)]
        typed: bool,
    },
    /// Return when the replica is consistent at or past a position; exit 1 if it is not in time
    Wait {
        /// LOGID:SEQ, as `sync`, `status` and `changes` tell it [default: the source's head now]
        position: Option<String>,
        /// Give up after this long, such as 500ms or 30s [default: never]
        #[arg(long, value_name = "TIME", value_parser = time)]
        timeout: Option<Duration>,
    },
    /// Bring tables to equality with the source again, from their start; rows stay readable meanwhile
    Rebuild {
        /// The tables [default: all]
        tables: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print one row by its key; exit 1 if there is none
    Get {
        table: String,
        /// One value for each column of the primary key (the rowid where there is none); x'…' is a blob
        #[arg(required = true, allow_negative_numbers = true)]
        key: Vec<String>,
        /// Every value as {"type":…,"value":…}
        #[arg(long)]
        typed: bool,
    },
    /// Print a table's rows in key order
    Scan {
        table: String,
        /// Every value as {"type":…,"value":…}
        #[arg(long)]
        typed: bool,
    },
    /// Print every table's rows
    Dump {
        /// Every value as {"type":…,"value":…}
        #[arg(long)]
        typed: bool,
    },
    /// Delete the changelog's entries that no replica needs any more
    Prune,
    /// Print the configuration that is in force
    Config,
    /// Give the space back that deleted and replaced rows have left in the replica
    Compact {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take capture out of the source; the replica given with -r, if any, may still follow it
    Remove {
        /// Even if other replicas follow it
        #[arg(long)]
        force: bool,
    },
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, or write those of all commands
    Man {
        /// Write redtail.1, redtail-run.1 and so on there
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand, Clone, Debug)]
pub enum Bench {
    /// The first copy of a table, beside reading alone and writing alone
    Copy {
        /// Rows in the table
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        rows: u64,
        /// Rows of 2 KB, 1.5 KB of which are a blob
        #[arg(long)]
        wide: bool,
        /// Runs, of which the median is told
        #[arg(long, default_value_t = 5, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// A backlog of changes to random rows, beside reading alone and writing alone
    Drain {
        /// Rows in the table
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        rows: u64,
        /// Changes in the backlog
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        changes: u64,
        /// How many of the rows are changed [default: all]
        #[arg(long, value_name = "N")]
        spread: Option<u64>,
        /// Rows of 2 KB, 1.5 KB of which are a blob
        #[arg(long)]
        wide: bool,
        /// Runs, of which the median is told
        #[arg(long, default_value_t = 5, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What capture adds to an application's writes, beside triggers of two other kinds
    Overhead {
        /// Runs, of which the median is told
        #[arg(long, default_value_t = 5, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One row by its key, from the replica and by a prepared SELECT
    Read {
        /// Rows in the table
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        rows: u64,
        /// Runs, of which the median is told
        #[arg(long, default_value_t = 5, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Killed under load: from the next start to the first change applied, beside redb's own opening
    Resume {
        /// Rows in the replica
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        rows: u64,
        /// Runs, of which the median is told
        #[arg(long, default_value_t = 5, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// All that needs no server, one after another, as one report
    All {
        /// Rows in the tables, and changes in the backlog
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        rows: u64,
        /// Runs of each, of which the median is told
        #[arg(long, default_value_t = 5, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Write the report as a page, too
        #[arg(long, value_name = "FILE")]
        html: Option<std::path::PathBuf>,
    },
    /// What an application without patience pays: its write times and refusals, alone and beside redtail
    Cost {
        /// Rows in the table
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        rows: u64,
        /// Transactions a second
        #[arg(long, default_value_t = 1000)]
        rate: u32,
        /// How long the application writes in each phase
        #[arg(long, default_value_t = 10, value_name = "N")]
        seconds: u64,
        /// How often redtail acknowledges; as by default, or more often to see what it costs
        #[arg(long, default_value = "5s", value_name = "TIME")]
        ack_interval: humantime::Duration,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Lag, requests and drains of a server (-s URL) that is there for it; it is written to
    Remote {
        /// Single-row transactions a second
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// How long each of the two lag runs writes
        #[arg(long, default_value_t = 5, value_name = "N")]
        seconds: u64,
        /// Rows of the drains
        #[arg(long, default_value_t = 200_000, value_name = "N")]
        rows: u64,
        /// Rows of the table that is updated here and there
        #[arg(long, default_value_t = 1_000_000, value_name = "N")]
        table: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Commit in the source to visible, and to durable, in the replica; with a bare loop as the floor
    Lag {
        /// Transactions a second
        #[arg(long, default_value_t = 1000)]
        rate: u32,
        /// How long each of the runs writes
        #[arg(long, default_value_t = 3, value_name = "N")]
        seconds: u64,
        /// Runs of each kind, in turn
        #[arg(long, default_value_t = 3, value_name = "N")]
        runs: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

fn time(given: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(given).map_err(|_| "a time is wanted, such as 500ms or 30s")
}

/// Parses the command line; the exit code if there is nothing left to do.
pub fn parse() -> Result<Args, u8> {
    Args::try_parse().map_err(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = e.print();
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = writeln!(std::io::stderr(), "redtail: a command is missing; `redtail --help` lists them");
            2
        }
        _ => {
            let _ =
                writeln!(std::io::stderr(), "redtail: {}; see `redtail --help`", one_line(&e.to_string()));
            2
        }
    })
}

/// What clap says over several lines, without its usage.
fn one_line(said: &str) -> String {
    let lines =
        said.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more"));
    let lines = lines.filter(|l| !l.is_empty()).map(|l| l.strip_prefix("error: ").unwrap_or(l));
    lines.map(|l| l.replacen("tip: ", "", 1)).collect::<Vec<_>>().join("; ").replace(":; ", ": ")
}
