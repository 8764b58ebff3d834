//! The hostile CLI of the escape suite: a program of its own, compiled by the suite with rustc, static, no crates.
//!
//! `attacker ATTACK...` tries each in a process of its own and prints a line `ATTACK OUTCOME` for it: the name of the
//! error that the kernel answered, what was seen, or `done` if nothing stood in the way.

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};

// What the standard library has no safe word for is what an attacker is after.
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn fork() -> c_int;
    fn signal(number: c_int, handler: *const c_void) -> *const c_void;
    fn setsid() -> c_int;
    fn abort() -> !;
    fn wait(status: *mut c_int) -> c_int;
    fn raise(number: c_int) -> c_int;
}

#[cfg(target_arch = "x86_64")]
mod number {
    pub const PTRACE: i64 = 101;
    pub const SETUID: i64 = 105;
    pub const MKNODAT: i64 = 259;
    pub const PIVOT_ROOT: i64 = 155;
    pub const CHROOT: i64 = 161;
    pub const ADJTIMEX: i64 = 159;
    pub const MOUNT: i64 = 165;
    pub const UMOUNT: i64 = 166;
    pub const SWAPON: i64 = 167;
    pub const REBOOT: i64 = 169;
    pub const SETHOSTNAME: i64 = 170;
    pub const INIT_MODULE: i64 = 175;
    pub const SYSLOG: i64 = 103;
    pub const CLOCK_SETTIME: i64 = 227;
    pub const KEXEC_LOAD: i64 = 246;
    pub const ADD_KEY: i64 = 248;
    pub const KEYCTL: i64 = 250;
    pub const UNSHARE: i64 = 272;
    pub const CLONE: i64 = 56;
    pub const SETNS: i64 = 308;
    pub const PERF_EVENT_OPEN: i64 = 298;
    pub const OPEN_BY_HANDLE_AT: i64 = 304;
    pub const PROCESS_VM_READV: i64 = 310;
    pub const FINIT_MODULE: i64 = 313;
    pub const MEMFD_CREATE: i64 = 319;
    pub const BPF: i64 = 321;
    pub const USERFAULTFD: i64 = 323;
    pub const SOCKET: i64 = 41;
    pub const SHMGET: i64 = 29;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const PTRACE: i64 = 117;
    pub const SETUID: i64 = 146;
    pub const MKNODAT: i64 = 33;
    pub const PIVOT_ROOT: i64 = 41;
    pub const CHROOT: i64 = 51;
    pub const ADJTIMEX: i64 = 171;
    pub const MOUNT: i64 = 40;
    pub const UMOUNT: i64 = 39;
    pub const SWAPON: i64 = 224;
    pub const REBOOT: i64 = 142;
    pub const SETHOSTNAME: i64 = 161;
    pub const INIT_MODULE: i64 = 105;
    pub const SYSLOG: i64 = 116;
    pub const CLOCK_SETTIME: i64 = 112;
    pub const KEXEC_LOAD: i64 = 104;
    pub const ADD_KEY: i64 = 217;
    pub const KEYCTL: i64 = 219;
    pub const UNSHARE: i64 = 97;
    pub const CLONE: i64 = 220;
    pub const SETNS: i64 = 268;
    pub const PERF_EVENT_OPEN: i64 = 241;
    pub const OPEN_BY_HANDLE_AT: i64 = 265;
    pub const PROCESS_VM_READV: i64 = 270;
    pub const FINIT_MODULE: i64 = 273;
    pub const MEMFD_CREATE: i64 = 279;
    pub const BPF: i64 = 280;
    pub const USERFAULTFD: i64 = 282;
    pub const SOCKET: i64 = 198;
    pub const SHMGET: i64 = 194;
}

// The same on every architecture.
const IO_URING_SETUP: i64 = 425;
const OPEN_TREE: i64 = 428;
const FSOPEN: i64 = 430;
const CLONE3: i64 = 435;

type Outcome = io::Result<String>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["one", attack] => println!("{}", outcome(attempt(attack))),
        ["fork-bomb"] => fork_bomb(),
        ["memory-bomb"] => memory_bomb(),
        ["memory-bomb-in-a-child"] => memory_bomb_in_a_child(),
        ["output-bomb", megabytes, line] => output_bomb(megabytes, line),
        ["exit", code] => exit(code.parse().unwrap()),
        ["signal", number] => die_of(number),
        ["hang"] => hang(),
        ["daemon"] => daemon(),
        ["burn"] => burn(),
        ["arguments", ..] => print!("{}", arguments[1..].join("\n")),
        ["environment"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["files"] => files(),
        ["request", port] => request(port),
        ["secrets"] => secrets(),
        ["ready"] => ready(),
        ref attacks => attacks.iter().for_each(|attack| println!("{attack} {}", in_a_process(attack))),
    }
}

/// So that no attack's success or death is in the next one's way.
fn in_a_process(attack: &str) -> String {
    let output = Command::new("/proc/self/exe").args(["one", attack]).output();
    match output {
        Err(error) => format!("not tried: {error}"),
        Ok(output) => match output.status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
        },
    }
}

fn outcome(outcome: Outcome) -> String {
    outcome.unwrap_or_else(|error| match error.raw_os_error() {
        Some(1) => "EPERM".to_owned(),
        Some(2) => "ENOENT".to_owned(),
        Some(11) => "EAGAIN".to_owned(),
        Some(13) => "EACCES".to_owned(),
        Some(24) => "EMFILE".to_owned(),
        Some(28) => "ENOSPC".to_owned(),
        Some(30) => "EROFS".to_owned(),
        Some(99) => "EADDRNOTAVAIL".to_owned(),
        Some(38) => "ENOSYS".to_owned(),
        Some(101) => "ENETUNREACH".to_owned(),
        Some(111) => "ECONNREFUSED".to_owned(),
        _ => error.to_string(),
    })
}

fn call(number: i64, arguments: [i64; 5]) -> Outcome {
    let [a, b, c, d, e] = arguments;
    let result = unsafe { syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok("done".to_owned()) }
}

/// A path for a system call. Leaked: the process lives for one attack.
fn text(text: &str) -> i64 {
    CString::new(text).unwrap().into_raw() as *const c_char as i64
}

/// Zeroed memory for a system call.
fn block() -> i64 {
    Box::leak(Box::new([0u64; 64])).as_mut_ptr() as i64
}

fn open_socket(domain: i64, kind: i64, protocol: i64) -> Outcome {
    call(number::SOCKET, [domain, kind, protocol, 0, 0])
}

fn write_to(path: impl AsRef<Path>, bytes: &str) -> Outcome {
    OpenOptions::new().write(true).open(path)?.write_all(bytes.as_bytes())?;
    Ok("done".to_owned())
}

fn connect(address: &str) -> Outcome {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2))?;
    Ok("done".to_owned())
}

fn attempt(attack: &str) -> Outcome {
    use number::*;
    const CLONE_NEWUSER: i64 = 0x1000_0000;
    const CLONE_NEWNET: i64 = 0x4000_0000;
    const SIGCHLD: i64 = 17;
    const ROOT: i64 = 0;
    let (name, argument) = attack.split_once('=').unwrap_or((attack, ""));
    match name {
        // More rights
        "uid" => Ok(fs::metadata("/proc/self")?.uid().to_string()),
        "capabilities" => {
            let status = fs::read_to_string("/proc/self/status")?;
            let sets = status.lines().filter(|line| line.starts_with("Cap"));
            let held: Vec<_> = sets.filter(|set| !set.ends_with("\t0000000000000000")).collect();
            Ok(if held.is_empty() { "none".to_owned() } else { held.join(" ") })
        }
        // The image has a copy of this program that belongs to root and has the bit.
        "setuid-program" => {
            let output = Command::new("/attacker-setuid").args(["one", "effective-uid"]).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        }
        "effective-uid" => {
            let status = fs::read_to_string("/proc/self/status")?;
            let uids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
            Ok(uids.split_whitespace().nth(2).unwrap().to_owned())
        }
        "setuid" => call(SETUID, [ROOT, 0, 0, 0, 0]),
        "unshare-user" => call(UNSHARE, [CLONE_NEWUSER, 0, 0, 0, 0]),
        "unshare-net" => call(UNSHARE, [CLONE_NEWNET, 0, 0, 0, 0]),
        "clone-user" => call(CLONE, [CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0]),
        "clone3" => call(CLONE3, [block(), 64, 0, 0, 0]),
        "setns" => call(SETNS, [0, 0, 0, 0, 0]),
        "ptrace" => call(PTRACE, [0, 0, 0, 0, 0]),
        "process-vm-readv" => call(PROCESS_VM_READV, [1, block(), 1, block(), 1]),
        // The file system
        "mount" => call(MOUNT, [text("none"), text("/tmp"), text("tmpfs"), 0, 0]),
        "remount" => call(MOUNT, [text("none"), text("/"), 0, 32, 0]),
        "umount" => call(UMOUNT, [text("/proc/cmdline"), 2, 0, 0, 0]),
        "open-tree" => call(OPEN_TREE, [-100, text("/"), 1, 0, 0]),
        "fsopen" => call(FSOPEN, [text("tmpfs"), 0, 0, 0, 0]),
        "pivot-root" => call(PIVOT_ROOT, [text("/tmp"), text("/tmp"), 0, 0, 0]),
        "chroot" => call(CHROOT, [text("/tmp"), 0, 0, 0, 0]),
        "device-node" => call(MKNODAT, [-100, text("/tmp/sda"), 0o060_666, 0x800, 0]),
        "fifo" => call(MKNODAT, [-100, text("/tmp/fifo"), 0o010_666, 0, 0]),
        "open-by-handle" => call(OPEN_BY_HANDLE_AT, [-100, block(), 0, 0, 0]),
        // The image has this directory for everybody to write into.
        "write-root" => File::create("/open/file").map(|_| "done".to_owned()),
        "write-program" => write_to("/dyad-sandbox-init", ""),
        "write-shm" => File::create("/dev/shm/file").map(|_| "done".to_owned()),
        "write-mqueue" => File::create("/dev/mqueue/queue").map(|_| "done".to_owned()),
        "exec-tmp" | "exec-home" | "exec-workspace" => {
            let directory = match name {
                "exec-tmp" => "/tmp",
                "exec-home" => "/home/cli",
                _ => "/workspace",
            };
            let path = format!("{directory}/program");
            // Its first bytes are enough: whether it may be run is asked first.
            let mut program = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&path)?;
            io::copy(&mut File::open("/proc/self/exe")?.take(64 * 1024), &mut program)?;
            drop(program);
            Command::new(path).stdout(Stdio::null()).status().map(|_| "done".to_owned())
        }
        "memfd" => call(MEMFD_CREATE, [text("program"), 0, 0, 0, 0]),
        "tmpfs-bytes" => fill_bytes(argument),
        "tmpfs-inodes" => fill_inodes(argument),
        "deep-directories" => deep(),
        "sparse-file" => {
            let file = File::create("/workspace/sparse")?;
            file.set_len(1 << 40).map(|()| "done".to_owned())
        }
        "long-file" => {
            let mut file = File::create("/workspace/long")?;
            let megabyte = vec![1; 1 << 20];
            (0..argument.parse().unwrap()).try_for_each(|_| file.write_all(&megabyte))?;
            Ok("done".to_owned())
        }
        "mounts" => Ok(mounts()?),
        "read" => fs::read_to_string(argument),
        // The kernel
        "bpf" => call(BPF, [0, block(), 64, 0, 0]),
        "perf" => call(PERF_EVENT_OPEN, [block(), 0, -1, -1, 0]),
        "io-uring" => call(IO_URING_SETUP, [8, block(), 0, 0, 0]),
        "userfaultfd" => call(USERFAULTFD, [1, 0, 0, 0, 0]),
        "keyctl" => call(KEYCTL, [0, -3, 1, 0, 0]),
        "add-key" => call(ADD_KEY, [text("user"), text("name"), text("value"), 5, -3]),
        "init-module" => call(INIT_MODULE, [block(), 64, text(""), 0, 0]),
        "finit-module" => call(FINIT_MODULE, [0, text(""), 0, 0, 0]),
        "kexec" => call(KEXEC_LOAD, [0, 0, 0, 0, 0]),
        "reboot" => call(REBOOT, [0, 0, 0, 0, 0]),
        "swapon" => call(SWAPON, [text("/tmp"), 0, 0, 0, 0]),
        "syslog" => call(SYSLOG, [3, block(), 64, 0, 0]),
        "clock" => call(CLOCK_SETTIME, [0, block(), 0, 0, 0]),
        "adjtimex" => call(ADJTIMEX, [block(), 0, 0, 0, 0]),
        "hostname" => call(SETHOSTNAME, [text("x"), 1, 0, 0, 0]),
        "shared-memory" => call(SHMGET, [0, 4096, 0o1600, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "x32-call" => call(0x4000_0000 + SETUID, [65532, 0, 0, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "i386-call" => Ok(i386_getpid()),
        "sysctl" => write_to("/proc/sys/kernel/core_pattern", "|/tmp/x"),
        "cgroup-write" => write_to(cgroup("memory.limit_in_bytes", "memory.max"), "-1"),
        "oom-score" => write_to("/proc/self/oom_score_adj", "-500"),
        "oom-score-is" => Ok(fs::read_to_string("/proc/self/oom_score_adj")?.trim_end().to_owned()),
        "swap-is" => swap(),
        "masked" => Ok(masked(argument)),
        "read-only" => read_only(argument),
        "cgroup-paths" => {
            let groups = fs::read_to_string("/proc/self/cgroup")?;
            let shown: Vec<_> = groups.lines().filter(|line| !line.ends_with(":/")).collect();
            Ok(if shown.is_empty() { "hidden".to_owned() } else { shown.join(" ") })
        }
        "limit" => limit(argument),
        "core-dump" => core_dump(),
        "descriptors" => descriptors(),
        // Others
        "packet-socket" => open_socket(17, 3, 0),
        "raw-socket" => open_socket(2, 3, 1),
        "ping-socket" => open_socket(2, 2, 1),
        "sctp-socket" => open_socket(2, 1, 132),
        "mptcp-socket" => open_socket(2, 1, 262),
        "vsock-socket" => open_socket(40, 1, 0),
        "alg-socket" => open_socket(38, 5, 0),
        "netlink-socket" => open_socket(16, 3, 0),
        "bluetooth-socket" => open_socket(31, 3, 0),
        "xdp-socket" => open_socket(44, 3, 0),
        // In the upper half of the argument, which the kernel does not look at and a filter does.
        "wide-socket" => open_socket(40 | 1 << 32, 1, 0),
        "interfaces" => {
            let devices = fs::read_to_string("/proc/net/dev")?;
            let names = devices.lines().skip(2).filter_map(|line| line.split_once(':'));
            Ok(names.map(|(name, _)| name.trim()).collect::<Vec<_>>().join(" "))
        }
        "connect" => connect(argument),
        "abstract-socket" => {
            UnixStream::connect_addr(&UnixAddr::from_abstract_name(argument)?)?;
            Ok("done".to_owned())
        }
        "dns" => dns(),
        "resolvers" => {
            let configuration = fs::read_to_string("/etc/resolv.conf")?;
            let servers = configuration.lines().filter_map(|line| line.strip_prefix("nameserver "));
            Ok(servers.collect::<Vec<_>>().join(" "))
        }
        "docker-socket" => {
            UnixStream::connect("/var/run/docker.sock")?;
            Ok("done".to_owned())
        }
        "hostname-is" => Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim_end().to_owned()),
        "processes" => Ok(processes()?.join(" ")),
        "orphans" => orphans(),
        "devices" => {
            let mut names: Vec<_> = fs::read_dir("/dev")?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                // A link into /proc, where the kernel has a core.
                .filter(|name| name != "core")
                .collect();
            names.sort();
            Ok(names.join(" "))
        }
        _ => Ok("unknown".to_owned()),
    }
}

/// Writes until it cannot, in files that no limit of their size stops. `argument`: stop after so many MiB.
fn fill_bytes(argument: &str) -> Outcome {
    let block = vec![1; 1 << 16];
    for file in 0..argument.parse::<u32>().unwrap() {
        let mut file = File::create(format!("/workspace/bytes-{file}"))?;
        for _ in 0..16 {
            file.write_all(&block)?;
        }
    }
    Ok("done".to_owned())
}

fn fill_inodes(argument: &str) -> Outcome {
    for file in 0..argument.parse::<u32>().unwrap() {
        File::create(format!("/home/cli/inode-{file}"))?;
    }
    Ok("done".to_owned())
}

fn deep() -> Outcome {
    std::env::set_current_dir("/tmp")?;
    for _ in 0..10_000 {
        fs::create_dir("deeper")?;
        std::env::set_current_dir("deeper")?;
    }
    Ok("done".to_owned())
}

/// The places that can be written, found by trying, and how they are mounted.
fn mounts() -> io::Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut writable = Vec::new();
    for line in table.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let (place, options) = (fields[4], fields[5]);
        let path = Path::new(place).join("probe");
        let is_writable = if Path::new(place).is_dir() {
            File::create(&path).is_ok() && fs::remove_file(&path).is_ok()
        } else {
            false
        };
        if is_writable {
            let options: Vec<_> = options.split(',').filter(|option| *option != "relatime").collect();
            writable.push(format!("{place}({})", options.join(",")));
        }
    }
    writable.sort();
    Ok(writable.join(" "))
}

/// Whether a place shows nothing: it is absent, an empty file or an empty directory.
fn masked(path: &str) -> String {
    let shown = match fs::metadata(path) {
        Err(_) => false,
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
        Ok(_) => File::open(path).is_ok_and(|mut file| file.read(&mut [0]).is_ok_and(|count| count > 0)),
    };
    if shown { "shown" } else { "hidden" }.to_owned()
}

/// Whether a place is a mount of its own that cannot be written.
fn read_only(path: &str) -> Outcome {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let found = table.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[4] == path);
    Ok(match found {
        None => "not mounted".to_owned(),
        Some(fields) if fields[5].split(',').any(|option| option == "ro") => "yes".to_owned(),
        Some(_) => "writable".to_owned(),
    })
}

/// A file of the memory control group, by its name in version 1 or 2.
fn cgroup(old: &str, new: &str) -> String {
    let old = format!("/sys/fs/cgroup/memory/{old}");
    if Path::new(&old).exists() { old } else { format!("/sys/fs/cgroup/{new}") }
}

/// How much swap the memory limit leaves.
fn swap() -> Outcome {
    let number = |old, new| fs::read_to_string(cgroup(old, new)).map(|text| text.trim_end().to_owned());
    // In version 1 this is memory and swap together.
    let swap = number("memory.memsw.limit_in_bytes", "memory.swap.max")?;
    let is_none = swap == "0" || swap == number("memory.limit_in_bytes", "memory.max")?;
    Ok(if is_none { "none".to_owned() } else { swap })
}

/// The hard limit, as the kernel names it.
fn limit(name: &str) -> Outcome {
    let table = fs::read_to_string("/proc/self/limits")?;
    let line = table.lines().find_map(|line| line.strip_prefix(&format!("Max {name}")));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(hard.unwrap_or("unknown").to_owned())
}

fn core_dump() -> Outcome {
    std::env::set_current_dir("/workspace")?;
    let before = fs::read_dir(".")?.count();
    if unsafe { fork() } == 0 {
        unsafe { abort() };
    }
    let status = await_child();
    Ok(match (status & 0x80, fs::read_dir(".")?.count() - before) {
        (0, 0) => "none".to_owned(),
        (dumped, files) => format!("dumped={dumped} files={files}"),
    })
}

/// Waits for any child, and returns how it ended.
fn await_child() -> c_int {
    let mut status = 0;
    unsafe { wait(&mut status) };
    status
}

fn descriptors() -> Outcome {
    let mut open = Vec::new();
    for _ in 0..100_000 {
        open.push(File::open("/dev/null")?);
    }
    Ok("done".to_owned())
}

fn dns() -> Outcome {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect("127.0.0.11:53").or_else(|_| socket.connect("127.0.0.1:53"))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    // example.org, A
    socket.send(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01")?;
    socket.recv(&mut [0; 512])?;
    Ok("done".to_owned())
}

/// The names of the processes that can be seen.
fn processes() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            names.extend(fs::read_to_string(entry.path().join("comm")).map(|name| name.trim_end().to_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Leaves children to process 1, which end, and looks whether their remains stay.
fn orphans() -> Outcome {
    for _ in 0..5 {
        if unsafe { fork() } == 0 {
            // Its child may outlive it, or end before: either way nobody waits for that.
            unsafe { fork() };
            exit(0);
        }
        await_child();
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let zombies = fs::read_dir("/proc")?
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
            .filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
            .count();
        if zombies == 0 {
            return Ok("reaped".to_owned());
        }
        if Instant::now() > deadline {
            return Ok(format!("{zombies} remain"));
        }
        std::thread::yield_now();
    }
}

#[cfg(target_arch = "x86_64")]
fn i386_getpid() -> String {
    let result: i64;
    unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result) };
    format!("done: {result}")
}

/// As many processes as the kernel gives, each of which stays. Says how many, and what stopped it.
fn fork_bomb() {
    let mut count = 0;
    while count < 200 {
        match unsafe { fork() } {
            0 => hang(),
            -1 => {
                println!("{count} {}", outcome(Err(io::Error::last_os_error())));
                return;
            }
            _ => count += 1,
        }
    }
    println!("{count} done");
}

/// 256 MiB, touched.
fn memory_bomb() {
    let held: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 4 << 20]).collect();
    println!("done {}", std::hint::black_box(held).len());
}

fn memory_bomb_in_a_child() {
    let child = unsafe { fork() };
    if child == 0 {
        memory_bomb();
        exit(0);
    }
    println!("the child ended by signal {}", await_child() & 0x7f);
}

fn output_bomb(megabytes: &str, line: &str) {
    let mut block = vec![b'x'; 1 << 20];
    if line == "lines" {
        block.iter_mut().step_by(80).for_each(|byte| *byte = b'\n');
    }
    let mut stdout = io::stdout().lock();
    for _ in 0..megabytes.parse::<u32>().unwrap() {
        if stdout.write_all(&block).is_err() {
            return;
        }
    }
}

fn die_of(number: &str) {
    unsafe { raise(number.parse().unwrap()) };
}

/// Deaf to every signal that one can be deaf to.
fn hang() -> ! {
    const IGNORE: *const c_void = 1 as *const c_void;
    for number in 1..32 {
        unsafe { signal(number, IGNORE) };
    }
    println!("hanging");
    loop {
        std::thread::park();
    }
}

/// Ends, and leaves a daemon.
fn daemon() {
    if unsafe { fork() } == 0 {
        unsafe { setsid() };
        if unsafe { fork() } == 0 {
            hang();
        }
        exit(0);
    }
    await_child();
    println!("left");
}

/// Keeps four threads busy for a second, and says how much of one core they got, in thousandths.
fn burn() {
    let started = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || while started.elapsed() < Duration::from_secs(1) {}))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let wall = started.elapsed();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    println!("{}", ticks * 10 * 1000 / wall.as_millis() as u64);
}

/// What lies in the workspace, and then stdin.
fn files() {
    let mut names: Vec<_> = fs::read_dir(".").unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let bytes = fs::read(&path).unwrap();
        println!("{} {mode:o} {}", path.display(), String::from_utf8_lossy(&bytes));
    }
    io::copy(&mut io::stdin(), &mut io::stdout()).unwrap();
}

/// Sends its stdin to a port, and prints the answer.
fn request(port: &str) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    let mut stream = TcpStream::connect(address).unwrap();
    io::copy(&mut io::stdin(), &mut stream).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    io::copy(&mut stream, &mut io::stdout()).unwrap();
}

/// A neighbour with something to find: a file, a listener, an abstract socket, its environment and its name.
fn secrets() {
    fs::write("/tmp/secret", "secret").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:7777").unwrap();
    let address = UnixAddr::from_abstract_name("dyad-neighbour").unwrap();
    let unix = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    println!("waiting");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    drop((tcp, unix));
}

/// Says that it runs, and ends with its input.
fn ready() {
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}
