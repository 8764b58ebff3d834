//! What a hostile CLI may try inside, and what comes of it.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use dyad_runner::sandbox::{Engine, Exit, Limit, Output, Prepared};

use crate::support::{Finished, TestNode, attacker, docker, limits, run, spec};

/// Attacks that a sandbox survives, each with what it meets. Those that need a sandbox of their own are tests below.
const ATTACKS: &[(&str, &str)] = &[
    // More rights
    ("uid", "65532"),
    ("capabilities", "none"),
    ("setuid-program", "65532"),
    ("setuid", "EPERM"),
    ("unshare-user", "EPERM"),
    ("unshare-net", "EPERM"),
    ("clone-user", "EPERM"),
    ("clone3", "ENOSYS"),
    ("setns", "EPERM"),
    ("ptrace", "EPERM"),
    ("process-vm-readv", "EPERM"),
    // The file system, before it is full
    (
        "mounts",
        "/home/cli(rw,nosuid,nodev,noexec) /tmp(rw,nosuid,nodev,noexec) /workspace(rw,nosuid,nodev,noexec)",
    ),
    ("mount", "EPERM"),
    ("remount", "EPERM"),
    ("umount", "EPERM"),
    ("open-tree", "EPERM"),
    ("fsopen", "EPERM"),
    ("pivot-root", "EPERM"),
    ("chroot", "EPERM"),
    ("device-node", "EPERM"),
    ("fifo", "EPERM"),
    ("open-by-handle", "EPERM"),
    ("write-root", "EROFS"),
    ("write-program", "EACCES"),
    ("write-shm", "ENOENT"),
    ("write-mqueue", "EMFILE"),
    ("exec-tmp", "EACCES"),
    ("exec-home", "EACCES"),
    ("exec-workspace", "EACCES"),
    ("memfd", "EPERM"),
    ("long-file=2", "signal 25"),
    ("tmpfs-bytes=16", "ENOSPC"),
    ("tmpfs-inodes=1000", "ENOSPC"),
    ("deep-directories", "ENOSPC"),
    ("sparse-file", "signal 25"),
    ("read-only=/dyad-sandbox-init", "yes"),
    // The kernel
    ("bpf", "EPERM"),
    ("perf", "EPERM"),
    ("io-uring", "EPERM"),
    ("userfaultfd", "EPERM"),
    ("keyctl", "EPERM"),
    ("add-key", "EPERM"),
    ("init-module", "EPERM"),
    ("finit-module", "EPERM"),
    ("kexec", "EPERM"),
    ("reboot", "EPERM"),
    ("swapon", "EPERM"),
    ("syslog", "EPERM"),
    ("clock", "EPERM"),
    ("adjtimex", "EPERM"),
    ("hostname", "EPERM"),
    ("shared-memory", "EPERM"),
    #[cfg(target_arch = "x86_64")]
    ("x32-call", "signal 31"),
    #[cfg(target_arch = "x86_64")]
    ("i386-call", "signal 31"),
    ("sysctl", "EACCES"),
    ("cgroup-write", "EACCES"),
    ("oom-score", "EACCES"),
    ("oom-score-is", "500"),
    ("swap-is", "none"),
    ("masked=/proc/cmdline", "hidden"),
    ("masked=/proc/interrupts", "hidden"),
    ("masked=/proc/kallsyms", "hidden"),
    ("masked=/proc/modules", "hidden"),
    ("masked=/proc/config.gz", "hidden"),
    ("masked=/proc/keys", "hidden"),
    ("masked=/proc/timer_list", "hidden"),
    ("masked=/sys/firmware", "hidden"),
    ("masked=/sys/devices/virtual/dmi", "hidden"),
    ("masked=/sys/devices/virtual/powercap", "hidden"),
    ("read-only=/proc/sys", "yes"),
    ("read-only=/proc/irq", "yes"),
    ("cgroup-paths", "hidden"),
    ("limit=open files", "64"),
    ("limit=core file size", "0"),
    ("limit=msgqueue size", "0"),
    ("core-dump", "none"),
    ("descriptors", "EMFILE"),
    // Others
    ("packet-socket", "EPERM"),
    ("raw-socket", "EPERM"),
    ("ping-socket", "EPERM"),
    ("sctp-socket", "EPERM"),
    ("mptcp-socket", "EPERM"),
    ("vsock-socket", "EPERM"),
    ("alg-socket", "EPERM"),
    ("netlink-socket", "EPERM"),
    ("bluetooth-socket", "EPERM"),
    ("xdp-socket", "EPERM"),
    ("wide-socket", "EPERM"),
    ("interfaces", "lo"),
    // Docker's usual gateway, the metadata service of clouds, private networks, the internet
    ("connect=172.17.0.1:80", "ENETUNREACH"),
    ("connect=169.254.169.254:80", "ENETUNREACH"),
    ("connect=10.0.0.1:80", "ENETUNREACH"),
    ("connect=192.0.2.1:443", "ENETUNREACH"),
    ("connect=[2001:db8::1]:443", "EADDRNOTAVAIL"),
    ("dns", "ECONNREFUSED"),
    ("resolvers", "127.0.0.1"),
    ("docker-socket", "ENOENT"),
    ("hostname-is", "sandbox"),
    ("processes", "attacker docker-init exe"),
    ("orphans", "reaped"),
    ("devices", "fd full mqueue null ptmx pts random stderr stdin stdout tty urandom zero"),
];

type IsSurvived = fn(&Finished) -> bool;

/// Attacks that take their sandbox with them, and what is to be seen of that.
const BOMBS: &[(&str, IsSurvived)] = &[
    ("fork-bomb", |finished| {
        let text = finished.text();
        // The limit is of 32, in which the engine's init and the attacker itself count.
        text.lines().any(|line| line == "30 EAGAIN")
    }),
    ("memory-bomb", |finished| {
        finished.exit == Exit { code: Some(137), limit: Some(Limit::Memory) } && finished.stdout.is_empty()
    }),
    ("memory-bomb-in-a-child", |finished| {
        // The CLI survived its child: nothing is wrong with its own end.
        finished.exit == Exit { code: Some(0), limit: None }
            && finished.text() == "the child ended by signal 9\n"
    }),
    ("burn", |finished| {
        // Thousandths of a core. The sandbox has 250, the kernel's accounting some slack.
        finished.text().trim_end().parse::<u32>().is_ok_and(|share| share <= 288)
    }),
    ("daemon", |finished| finished.exit.code == Some(0) && finished.text().contains("left\n")),
];

/// `ATTACK OUTCOME` for each that had another outcome than the table says.
async fn surprises(engine: &Engine, prepared: &Prepared, table: &[(&str, &str)]) -> Vec<String> {
    let mut argv = vec!["/attacker"];
    argv.extend(table.iter().map(|(attack, _)| *attack));
    let finished = run(engine, spec(prepared, &argv), b"").await;
    let text = finished.text();
    assert_eq!(text.lines().count(), table.len(), "{finished:?}");
    let outcomes = text.lines().zip(table).map(|(line, (attack, expected))| {
        (line.strip_prefix(attack).map(str::trim_start) != Some(*expected)).then(|| line.to_owned())
    });
    outcomes.flatten().collect()
}

/// Err: what came out instead.
pub(crate) async fn try_attack(engine: &Engine, prepared: &Prepared, attack: &str) -> Result<(), String> {
    if let Some(row) = ATTACKS.iter().find(|(name, _)| *name == attack) {
        let surprises = surprises(engine, prepared, &[*row]).await;
        return if surprises.is_empty() { Ok(()) } else { Err(surprises.concat()) };
    }
    let (_, is_survived) = BOMBS.iter().find(|(name, _)| *name == attack).unwrap();
    let mut spec = spec(prepared, &["/attacker", attack]);
    spec.limits.cpu_milli = 250;
    let finished = run(engine, spec, b"").await;
    if is_survived(&finished) { Ok(()) } else { Err(format!("{finished:?}")) }
}

#[tokio::test]
async fn attacks_fail() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    assert_eq!(surprises(&engine, &prepared, ATTACKS).await, Vec::<String>::new());
}

#[tokio::test]
async fn bombs_take_nothing_but_their_sandbox() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    for (bomb, _) in BOMBS {
        assert_eq!(try_attack(&engine, &prepared, bomb).await, Ok(()), "{bomb}");
    }
    assert!(node.containers().is_empty());
}

/// One endless line, and many short ones.
#[tokio::test]
async fn output_beyond_its_limit_ends_the_sandbox() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    for kind in ["line", "lines"] {
        let finished = run(&engine, spec(&prepared, &["/attacker", "output-bomb", "2048", kind]), b"").await;
        assert_eq!(finished.exit, Exit { code: None, limit: Some(Limit::Output) });
        let limit = limits().output_bytes;
        let length = finished.stdout.len() as u64;
        assert!(length <= limit && length > limit - 64 * 1024, "{length}");
    }
    // Up to the limit, nothing is lost.
    let finished = run(&engine, spec(&prepared, &["/attacker", "output-bomb", "4", "lines"]), b"").await;
    assert_eq!((finished.exit.code, finished.stdout.len()), (Some(0), 4 << 20));
}

#[tokio::test]
async fn the_host_is_out_of_reach() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let name = format!("dyad-test-{}", std::process::id());
    let _unix = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let attacks = [format!("abstract-socket={name}"), format!("connect={}", tcp.local_addr().unwrap())];
    let table = attacks.each_ref().map(|attack| (attack.as_str(), "ECONNREFUSED"));
    assert_eq!(surprises(&engine, &prepared, &table).await, Vec::<String>::new());
}

#[tokio::test]
async fn neighbours_are_invisible() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let mut neighbour = engine.start(spec(&prepared, &["/attacker", "secrets"])).await.unwrap();
    assert_eq!(neighbour.output.recv().await, Some(Output::Stdout("waiting\n".into())));
    let table = [
        ("processes", "attacker docker-init exe"),
        ("connect=127.0.0.1:7777", "ECONNREFUSED"),
        ("abstract-socket=dyad-neighbour", "ECONNREFUSED"),
        ("read=/tmp/secret", "ENOENT"),
    ];
    assert_eq!(surprises(&engine, &prepared, &table).await, Vec::<String>::new());
    neighbour.remove().await;
}

/// Nothing of it is in a file of the host, not even in the engine's.
#[tokio::test]
async fn what_is_printed_is_not_written_down() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let mut sandbox = engine.start(spec(&prepared, &["/attacker", "ready"])).await.unwrap();
    assert_eq!(sandbox.output.recv().await, Some(Output::Stdout("ready\n".into())));
    assert_eq!(docker(&["inspect", "--format", "{{.LogPath}}", &sandbox.id]).trim_end(), "");
    sandbox.remove().await;
}

/// No shell ever sees them, and none is the engine's or dyad-sandbox-init's own.
#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let hostile = ["--", "--files", "$(touch /tmp/x)", "; exit 1", "a b", "", "\u{1b}[31m", "é"];
    let mut argv = vec!["/attacker", "arguments"];
    argv.extend(hostile);
    let finished = run(&engine, spec(&prepared, &argv), b"").await;
    assert_eq!(finished.text(), hostile.join("\n"));
}
