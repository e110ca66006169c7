//! A server process, and what `/proc` says of it.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::Args;
use super::device::broken;

/// The unit of CPU times in `/proc`, on every Linux that programs see.
const TICKS_PER_S: f64 = 100.0;

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Control,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Control => "control",
        }
    }
}

/// A running server; killed when dropped.
pub(crate) struct Target {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    /// What it has logged, in JSON lines.
    log: Arc<Mutex<Vec<String>>>,
    /// The server's data, on the disk of the target folder.
    _data: TempDir,
}

impl Target {
    /// Starts a server on a free port of loopback.
    pub(crate) async fn start(kind: Kind, args: &Args) -> io::Result<Self> {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut command = match kind {
            Kind::Server => {
                let mut command = Command::new(&args.server);
                command.args(["--log", "warn,volant=info", "--log-json", "serve", "--listen", "127.0.0.1:0"]);
                command.arg("--data-dir").arg(data.path().join("data"));
                // The limits on a device are not what is measured.
                command.args(["--gateway-device-messages-per-s", "1000000"]);
                command.args(["--gateway-device-frames-per-s", "30000000"]);
                command
            }
            Kind::Control => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--control");
                command
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).ok_or_else(|| broken("no pipes"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        // Read to the end, or the server would stop at a full pipe.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })?;
        let mut target = Self { kind, child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log, _data: data };
        let ready = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(Duration::from_mins(1), ready).await.map_err(io::Error::other)???;
        let address = line.trim().strip_prefix("listening on http://").and_then(|address| address.parse().ok());
        target.address = address.ok_or_else(|| {
            broken(&format!("the {} did not start: {line}{}", kind.as_str(), target.log().join("\n")))
        })?;
        Ok(target)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.as_str()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn proc_file(&self, name: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id()))
    }

    /// CPU time of the process so far, user and system, all threads, s.
    pub(crate) fn cpu_s(&self) -> io::Result<f64> {
        let stat = self.proc_file("stat")?;
        // The name may hold blanks; fields are counted from behind it.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).ok_or_else(|| broken("/proc/…/stat has no CPU times"))?;
        Ok((user + system) / TICKS_PER_S)
    }

    /// Resident memory, bytes.
    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| broken("/proc/…/status has no VmRSS"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Nothing it holds is needed any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Thousands of sockets need as many descriptors; children inherit the limit.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
