//! The Docker engine that sandboxes need: the one that answers, or one of our own for as long as the tests run.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    context::Context,
    process::{Problem, Step},
    provision::install_debian,
    say,
    services::Services,
};

const USUAL_SOCKET: &str = "/var/run/docker.sock";
/// An engine answers a ping within milliseconds, unless its machine is out of breath.
const PING: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(60);

/// An engine, and the program `docker` that speaks to it.
pub(crate) fn provide(context: &Context, services: &mut Services) -> Result<(), Problem> {
    provide_engine(context, services)?;
    provide_client(context)
}

/// Uses the engine that answers, and leaves it alone. Where none does, installs one, and starts it if the package did
/// not; such a one ends with `services`.
fn provide_engine(context: &Context, services: &mut Services) -> Result<(), Problem> {
    let socket = socket(env::var("DOCKER_HOST").ok())?;
    let Some(mut why) = silence(&socket)? else { return Ok(()) };
    let by_hand = |why: &str| {
        Problem(format!(
            "no Docker engine answers at {} ({why}). Start it, such as with `systemctl start docker`, or as root with \
             `dockerd`",
            socket.display()
        ))
    };
    if cfg!(not(target_os = "linux")) || socket != Path::new(USUAL_SOCKET) {
        return Err(by_hand(&why));
    }
    if !dockerd(context).arg("--version").works() {
        install_debian(context, &["docker.io"])?;
        // Where services are started at installation, it answers now.
        match silence(&socket)? {
            None => return Ok(()),
            Some(still) => why = still,
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err(by_hand(&why));
    }
    provide_cgroups(context)?;
    say("starting a Docker engine, until the tests are done");
    // With its own defaults, as its package would start it. (`--bridge=none` would take away a bridge that is there, also
    // from an engine that listens elsewhere.)
    services.start("dockerd", dockerd(context), |line| line.contains("API listen on").then_some(()))?;
    match silence(&socket)? {
        None => Ok(()),
        Some(why) => Err(by_hand(&why)),
    }
}

/// Whether an engine answers.
pub(crate) fn answers() -> Result<bool, Problem> {
    Ok(silence(&socket(env::var("DOCKER_HOST").ok())?)?.is_none())
}

fn provide_client(context: &Context) -> Result<(), Problem> {
    let works = || context.step("docker", PROBE).arg("--version").works();
    if works() {
        return Ok(());
    }
    // A package of its own since Debian 13; before, a part of the engine's.
    install_debian(context, &["docker-cli"]).or_else(|_| install_debian(context, &["docker.io"]))?;
    if works() {
        return Ok(());
    }
    Err(Problem("Docker's packages are installed, yet `docker --version` does not work".into()))
}

/// Mounts cgroups where nothing did, as in a system without an init: an engine does not start without them.
fn provide_cgroups(context: &Context) -> Result<(), Problem> {
    let mounts = fs::read_to_string("/proc/self/mounts");
    let mounts = mounts.map_err(|error| Problem(format!("/proc/self/mounts: {error}")))?;
    if has_cgroups(&mounts) {
        return Ok(());
    }
    if !context.step("sh", PROBE).args(["-c", "command -v cgroupfs-mount"]).works() {
        install_debian(context, &["cgroupfs-mount"])?;
    }
    context.step("cgroupfs-mount", PROBE).succeed().map(drop)
}

/// Whether these lines of `/proc/self/mounts` have cgroups of either version (`proc_pid_mounts(5)`).
fn has_cgroups(mounts: &str) -> bool {
    mounts.lines().any(|line| matches!(line.split(' ').nth(2), Some("cgroup" | "cgroup2")))
}

fn dockerd(context: &Context) -> Step {
    // A user's PATH often lacks the directory of the system's programs.
    let program = if Path::new("/usr/sbin/dockerd").exists() { "/usr/sbin/dockerd" } else { "dockerd" };
    // The longest of what it is used for.
    context.step(program, START.max(PROBE))
}

/// Where the engine listens, as Docker's own programs find it.
fn socket(docker_host: Option<String>) -> Result<PathBuf, Problem> {
    match docker_host.filter(|host| !host.is_empty()) {
        None => Ok(USUAL_SOCKET.into()),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => Err(Problem(format!(
                "DOCKER_HOST is {host}, but sandboxes need an engine on this machine: unset it, or give unix://PATH"
            ))),
        },
    }
}

/// Why nobody answers there; None if somebody does. A problem if it answers to others only.
fn silence(socket: &Path) -> Result<Option<String>, Problem> {
    match ping(socket) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Problem(format!(
            "you may not use the Docker engine at {}: join its group (`usermod -aG docker USER`, then log in again) or \
             run this as root",
            socket.display()
        ))),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// `GET /_ping` of the Docker Engine API.
fn ping(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PING))?;
    stream.set_write_timeout(Some(PING))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    match &status[9..] {
        b"200" => Ok(()),
        _ => Err(io::Error::other("it is not ready")),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    #[test]
    fn an_engine_is_where_docker_looks_for_it() {
        assert_eq!(socket(None).unwrap(), Path::new(USUAL_SOCKET));
        assert_eq!(socket(Some(String::new())).unwrap(), Path::new(USUAL_SOCKET));
        assert_eq!(
            socket(Some("unix:///run/user/1/docker.sock".into())).unwrap(),
            Path::new("/run/user/1/docker.sock")
        );
        assert!(socket(Some("tcp://10.0.0.1:2375".into())).unwrap_err().0.contains("on this machine"));
    }

    #[test]
    fn cgroups_are_known_by_their_type() {
        let root = "overlay / overlay rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n";
        assert!(!has_cgroups(root));
        assert!(has_cgroups(&format!("{root}cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n")));
        assert!(has_cgroups("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"));
    }

    #[test]
    fn only_a_good_answer_counts() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        assert!(silence(&socket).unwrap().unwrap().contains("No such file"));

        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            for answer in ["HTTP/1.0 200 OK\r\n\r\nOK", "HTTP/1.0 503 Service Unavailable\r\n\r\n", ""] {
                let (mut peer, _) = listener.accept().unwrap();
                let mut request = [0; 35];
                peer.read_exact(&mut request).unwrap();
                peer.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(silence(&socket).unwrap(), None);
        assert_eq!(silence(&socket).unwrap().as_deref(), Some("it is not ready"));
        assert!(silence(&socket).unwrap().is_some());
        server.join().unwrap();
        assert!(silence(&socket).unwrap().unwrap().contains("refused"));
    }
}
