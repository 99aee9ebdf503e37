//! The real binary: one command at a time, or a `run` that is followed, signalled and killed.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;

use super::writer::is_free;
use super::{DEADLINE, poll};

/// The binary with a working folder, in which every relative path of a test lies.
#[derive(Clone)]
pub(crate) struct Redtail {
    folder: PathBuf,
    env: Vec<(&'static str, String)>,
    /// The program; a copy that anybody may run, where it is run as somebody else.
    program: PathBuf,
    /// Run as `nobody`.
    as_nobody: bool,
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A `run` under way; killed when dropped.
pub(crate) struct Run {
    child: Child,
    redtail: Redtail,
    source: String,
    replica: String,
    /// Where its stderr goes, read when it fails.
    messages: PathBuf,
}

impl Redtail {
    pub(crate) fn new(folder: &Path) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_redtail"));
        Self { folder: folder.to_owned(), env: Vec::new(), program, as_nobody: false }
    }

    /// The same with one more environment variable.
    pub(crate) fn with_env(&self, name: &'static str, value: &str) -> Self {
        let mut with = self.clone();
        with.env.push((name, value.to_owned()));
        with
    }

    /// The same, run by somebody whom the modes of files hold up, to whom the whole folder belongs; `None` if this
    /// process is root and cannot become anybody else.
    pub(crate) fn as_nobody(&self) -> Option<Self> {
        let mut with = self.clone();
        if rustix::process::geteuid().is_root() {
            with.program = self.path("program");
            std::fs::copy(&self.program, &with.program).unwrap();
            with.as_nobody = true;
            let changed = Command::new("chown").args(["-R", "65534:65534"]).arg(&self.folder).status();
            let became = with.command(Path::new("true")).status();
            if !(changed.is_ok_and(|s| s.success()) && became.is_ok_and(|s| s.success())) {
                return None;
            }
        }
        Some(with)
    }

    /// A path inside the working folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command of the given program file, in the working folder, with none of this process' own settings.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REDTAIL_") {
                command.env_remove(name);
            }
        }
        command.env_remove("RUST_LOG").env_remove("TURSO_AUTH_TOKEN");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).stdin(Stdio::null());
        if self.as_nobody {
            command.uid(65_534).gid(65_534);
        }
        command
    }

    /// Runs one command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(&self.program);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().expect("the binary starts"), &format!("redtail {args:?}"))
    }

    /// Runs one command that must succeed; answers its stdout.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, Some(0), "redtail {args:?}: {output:#?}");
        output.stdout
    }

    /// `sync`, which must succeed.
    pub(crate) fn sync(&self, source: &str, replica: &str) {
        self.ok(&["sync", "-s", source, "-r", replica]);
    }

    /// `status --json`, which must succeed.
    pub(crate) fn status(&self, source: &str, replica: &str) -> Value {
        let text = self.ok(&["status", "-s", source, "-r", replica, "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("status: {error}: {text}"))
    }

    /// `dump --typed` into a file.
    pub(crate) fn dump(&self, replica: &str, out: &Path) {
        let mut command = self.command(&self.program);
        command.args(["dump", "--typed", "-r", replica]);
        command.stdout(File::create(out).unwrap()).stderr(Stdio::piped());
        let output = finish(command.spawn().expect("the binary starts"), "redtail dump");
        assert_eq!(output.code, Some(0), "redtail dump: {output:#?}");
    }

    /// Starts a command that is to be killed.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(&self.program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary starts")
    }

    /// Starts `run`.
    pub(crate) fn spawn_run(&self, source: &str, replica: &str) -> Run {
        self.spawned(self.command(&self.program), source, replica)
    }

    /// Starts `run` as a process that gets an error, and not a signal, when a file may not grow any more.
    pub(crate) fn spawn_run_without_room(&self, source: &str, replica: &str) -> Run {
        self.spawn_run_after("trap '' XFSZ", source, replica)
    }

    /// Starts `run` in a shell that has done something first.
    pub(crate) fn spawn_run_after(&self, first: &str, source: &str, replica: &str) -> Run {
        let mut command = self.command(Path::new("sh"));
        command.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]).arg(&self.program);
        self.spawned(command, source, replica)
    }

    fn spawned(&self, mut command: Command, source: &str, replica: &str) -> Run {
        let messages = self.path("run.stderr");
        command.args(["run", "-s", source, "-r", replica]);
        command.stdout(Stdio::null()).stderr(File::create(&messages).unwrap());
        let child = command.spawn().expect("the binary starts");
        Run { child, redtail: self.clone(), source: source.to_owned(), replica: replica.to_owned(), messages }
    }
}

impl Output {
    /// The lines of stdout as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Fails unless stderr is exactly one line and holds every one of `fragments`.
    pub(crate) fn assert_one_line(&self, what: &str, fragments: &[&str]) {
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{what}: one line on stderr: {self:#?}");
        for fragment in fragments {
            assert!(self.stderr.contains(fragment), "{what}: says {fragment:?}: {self:#?}");
        }
    }
}

impl Run {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process answers on its control socket.
    ///
    /// Found by connecting to the socket beside the replica: asking through the binary before then would
    /// open the replica file itself, and could lock this process out of it. A socket left by a killed
    /// process refuses the connection.
    pub(crate) fn live(&mut self) {
        let socket = self.redtail.path(&format!("{}.sock", self.replica));
        let answered = poll(|| {
            self.assert_running();
            UnixStream::connect(&socket).is_ok().then_some(())
        });
        assert!(answered.is_some(), "no control socket of run; {}", self.said());
    }

    /// The status as this process tells it.
    pub(crate) fn status(&mut self) -> Value {
        self.assert_running();
        let status = self.redtail.status(&self.source, &self.replica);
        assert_eq!(status["live"], true, "answered by the process: {status}");
        status
    }

    /// Waits until the replica equals the source's head; answers that status. The writers must have stopped.
    pub(crate) fn caught_up(&mut self) -> Value {
        self.live();
        let mut last = Value::Null;
        let found = poll(|| {
            last = self.status();
            is_caught_up(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("not caught up, last: {last:#}; {}", self.said()))
    }

    /// kill -9, now.
    pub(crate) fn kill9(mut self) {
        self.assert_running();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name.
    pub(crate) fn send(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill runs").success(), "kill -{name}");
    }

    /// Sends a signal by name (`TERM`, `INT`) and waits for the end.
    pub(crate) fn signal(mut self, name: &str) -> ExitStatus {
        self.send(name);
        poll(|| self.child.try_wait().unwrap()).expect("run ends after a signal")
    }

    /// Ends it cleanly.
    pub(crate) fn stop(self) {
        let messages = self.messages.clone();
        let status = self.signal("TERM");
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(messages).unwrap());
    }

    /// SIGSTOP, where it holds no lock that an application would wait for until [`Run::go_on`]; for files.
    pub(crate) fn stand_still(&self) {
        let source = self.redtail.path(&self.source);
        let stopped = poll(|| {
            self.send("STOP");
            // The signal is only sent by then: a thread may be in a call that takes the lock.
            let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
            let status = waitpid(pid, WaitOptions::UNTRACED).unwrap().expect("waited for").1;
            assert!(status.stopped(), "{status:?}: {}", self.said());
            let free = is_free(&source);
            if !free {
                self.go_on();
            }
            free.then_some(())
        });
        assert!(stopped.is_some(), "never without the write lock");
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.send("CONT");
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends by itself; its exit code, and what it has said.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = poll(|| self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("does not end: {}", self.said()));
        (status.code(), self.said())
    }

    /// Fails with what the process said if it is no longer there.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("run ended by itself, {status}: {}", self.said());
        }
    }

    /// Waits until the status, as this process tells it, is as wanted; answers it.
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = poll(|| {
            last = self.status();
            wanted(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("not {what}, last: {last:#}; {}", self.said()))
    }

    /// What it has said on stderr so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.messages).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end with a deadline, and takes what it said.
pub(crate) fn finish(child: Child, what: &str) -> Output {
    let pid = child.id();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(output) = end.recv_timeout(DEADLINE * 2) else {
        let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
        panic!("{what}: still running after {:?}", DEADLINE * 2);
    };
    let output = output.unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a status says that the replica equals the source.
pub(crate) fn is_caught_up(status: &Value) -> bool {
    let reconciling = status["reconciling"].as_array().expect("reconciling is a list");
    status["consistent"] == true && status["lag_entries"] == 0 && reconciling.is_empty()
}
