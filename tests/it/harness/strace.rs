//! Watches or disturbs the system calls of a running process.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::NamedTempFile;

use super::lines::Lines;
use super::program::send_signal;
use super::tools::tool;

/// A strace that follows every thread of a process.
#[derive(Debug)]
pub(crate) struct Strace {
    child: Child,
    file: NamedTempFile,
    messages: Lines,
}

/// One system call as strace printed it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// Arguments and result.
    pub(crate) text: String,
}

impl Strace {
    /// Attaches to `pid` with `arguments` such as `-e trace=splice`; returns once it sees every
    /// call.
    #[track_caller]
    pub(crate) fn attach(pid: u32, arguments: &[&str]) -> Self {
        let file = NamedTempFile::new().unwrap();
        let mut command = Command::new(tool("strace"));
        command.arg("-f").args(arguments).arg("-o").arg(file.path());
        command.arg("-p").arg(pid.to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let messages = Lines::gather(child.stderr.take().expect("stderr is piped"));
        messages.wait_for(&format!("Process {pid} attached"));
        Self {
            child,
            file,
            messages,
        }
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        parse(&fs::read_to_string(self.file.path()).unwrap())
    }

    /// Lets the process go on alone, and gives every call that was seen.
    #[track_caller]
    pub(crate) fn detach(mut self) -> Vec<Call> {
        send_signal(self.child.id(), "INT");
        self.child.wait().unwrap();
        self.calls()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // A strace that is killed lets its process go on; both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- what strace said:\n{}", self.messages.text());
        }
    }
}

/// How many calls have this name.
pub(crate) fn count(calls: &[Call], name: &str) -> usize {
    calls.iter().filter(|call| call.name == name).count()
}

/// A call that another thread interrupted stands in two lines: `... <unfinished ...>` and
/// `<... NAME resumed>...`.
fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<u32, usize> = HashMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Ok(thread) = thread.parse() else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let (Some(at), Some((_, end))) =
                (unfinished.remove(&thread), resumed.split_once("resumed>"))
            {
                calls[at].text.push_str(end);
            }
            continue;
        }
        let Some((name, text)) = rest.split_once('(') else {
            continue;
        };
        if rest.ends_with("<unfinished ...>") {
            unfinished.insert(thread, calls.len());
        }
        calls.push(Call {
            thread,
            name: name.to_owned(),
            text: text.to_owned(),
        });
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_in_two_lines_is_one_call() {
        let calls = parse(
            "7  epoll_wait(3, <unfinished ...>\n8  read(4, \"\", 1) = 0\n\
             7  <... epoll_wait resumed>[], 1, -1) = 0\n7  +++ exited with 0 +++\n",
        );
        assert_eq!(count(&calls, "epoll_wait"), 1);
        assert!(calls[0].text.ends_with("= 0"));
        assert_eq!(calls.len(), 2);
    }
}
