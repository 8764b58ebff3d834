//! What a hostile CLI may try inside, and what comes of it.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use dyad_runner::sandbox::{Engine, Limit, Prepared};

use crate::support::{TestNode, attacker, run, spec};

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
    ("orphans", "reaped"),
    ("devices", "fd full mqueue null ptmx pts random stderr stdin stdout tty urandom zero"),
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

#[tokio::test]
async fn attacks_fail() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    assert_eq!(surprises(&engine, &prepared, ATTACKS).await, Vec::<String>::new());
}
