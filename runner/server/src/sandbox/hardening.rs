//! What a container may and may not do, and the check that Docker has taken it so.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use serde_json::{Map, Value};

use super::{EGRESS_SOCKET, HOME, PROGRAM, SandboxSpec, UID, WORKSPACE, program};

/// Whose containers they are: the value is the node's id.
pub(super) const NODE_LABEL: &str = "dyad.node";
const CLI_LABEL: &str = "dyad.cli";

/// Allows what Node, Bun and static programs need. Everything else is refused: among it vsock, netlink and raw
/// sockets, namespaces, mounts, ptrace, keyrings, bpf, perf, `io_uring` and userfaultfd, most of which Docker's own
/// profile of 20.10 lets pass or leaves to the capabilities.
const SECCOMP: &str = include_str!("seccomp.json");

/// Docker's own list, and what else of the host shows there.
const MASKED_PATHS: [&str; 17] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is the node's own in a container.
pub(super) struct Own<'a> {
    pub(super) node: &'a str,
    /// `dyad-sandbox-init` on this host.
    pub(super) program: &'a Path,
}

/// The container for a sandbox. What [`check`] is to rely on is said, even where Docker would do so anyway.
pub(super) fn container(
    spec: &SandboxSpec,
    image: &str,
    runtime: Option<&str>,
    own: &Own<'_>,
) -> ContainerCreateBody {
    let relay = spec.egress.as_ref().map(|egress| (egress.port, EGRESS_SOCKET));
    let mut environment: Vec<_> =
        spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !spec.environment.iter().any(|(name, _)| name == "HOME") {
        environment.push(format!("HOME={HOME}"));
    }
    let labels = [(NODE_LABEL, own.node), (CLI_LABEL, &spec.cli)];
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec![PROGRAM.to_owned()]),
        cmd: Some(program::arguments(&spec.argv, relay, spec.waits_for_files)),
        env: Some(environment),
        working_dir: Some(WORKSPACE.to_owned()),
        user: Some(format!("{UID}:{UID}")),
        // The default is the container's id, which is nobody's business inside.
        hostname: Some("sandbox".to_owned()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        tty: Some(false),
        // An image's own check would run a second program beside the CLI.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        host_config: Some(host_config(spec, runtime, own)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &SandboxSpec, runtime: Option<&str>, own: &Own<'_>) -> HostConfig {
    let limits = &spec.limits;
    let mut mounts = vec![read_only(own.program, PROGRAM)];
    mounts.extend(spec.egress.as_ref().map(|egress| read_only(&egress.path, EGRESS_SOCKET)));
    let tmpfs = format!(
        "rw,noexec,nosuid,nodev,size={},nr_inodes={},uid={UID},gid={UID},mode=0700",
        limits.tmpfs_bytes, limits.tmpfs_inodes
    );
    let memory = signed(limits.memory_bytes);
    HostConfig {
        runtime: runtime.map(str::to_owned),
        // A loopback of its own, and nothing else. Namespaces that are shared with other sandboxes would be faster to
        // make, and would share ports and abstract sockets.
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("none".to_owned()),
        pid_mode: Some(String::new()),
        uts_mode: Some(String::new()),
        userns_mode: Some(String::new()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        privileged: Some(false),
        cap_add: Some(Vec::new()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned(), format!("seccomp={SECCOMP}")]),
        readonly_rootfs: Some(true),
        tmpfs: Some([WORKSPACE, HOME, "/tmp"].map(|path| (path.to_owned(), tmpfs.clone())).into()),
        mounts: Some(mounts),
        binds: Some(Vec::new()),
        volumes_from: Some(Vec::new()),
        devices: Some(Vec::new()),
        device_requests: Some(Vec::new()),
        device_cgroup_rules: Some(Vec::new()),
        masked_paths: Some(MASKED_PATHS.map(str::to_owned).into()),
        readonly_paths: Some(READ_ONLY_PATHS.map(str::to_owned).into()),
        memory: Some(memory),
        // Memory and swap together: no swap.
        memory_swap: Some(memory),
        oom_kill_disable: Some(false),
        // Before anything else of the host.
        oom_score_adj: Some(500),
        nano_cpus: Some(i64::from(limits.cpu_milli) * 1_000_000),
        pids_limit: Some(i64::from(limits.pids)),
        ulimits: Some(vec![
            ulimit("nofile", limits.open_files),
            ulimit("fsize", limits.file_bytes),
            ulimit("core", 0),
            ulimit("msgqueue", 0),
        ]),
        // Reaps orphans.
        init: Some(true),
        // The keeper removes; Docker would, too, what it has just been asked about.
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            ..RestartPolicy::default()
        }),
        // Prompts and answers are in no file of the host.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: Some(HashMap::new()) }),
        // The host's own resolvers would show in /etc/resolv.conf.
        dns: Some(vec!["127.0.0.1".to_owned()]),
        dns_search: Some(vec![".".to_owned()]),
        ..HostConfig::default()
    }
}

fn read_only(source: &Path, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn ulimit(name: &str, value: u64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(signed(value)), hard: Some(signed(value)) }
}

/// Docker's numbers are signed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Compares a container with what was asked for, member by member. Err: the first one that differs.
pub(super) fn check(asked: &ContainerCreateBody, found: &ContainerInspectResponse) -> Result<(), String> {
    let mut asked = members(asked);
    let host = asked.remove("HostConfig").unwrap_or_default();
    let Value::Object(host) = host else { return Err("HostConfig".to_owned()) };
    compare("Config", &asked, &members(&found.config))?;
    compare("HostConfig", &host, &members(&found.host_config))?;
    // Volumes that the image asks for come without being asked for here. Nothing limits their size.
    let mounts = found.mounts.as_deref().unwrap_or_default();
    let is_ours = |destination: Option<&str>| matches!(destination, Some(PROGRAM | EGRESS_SOCKET));
    if mounts.iter().any(|mount| mount.rw != Some(false) || !is_ours(mount.destination.as_deref())) {
        return Err("Mounts".to_owned());
    }
    Ok(())
}

fn compare(of: &str, asked: &Map<String, Value>, found: &Map<String, Value>) -> Result<(), String> {
    for (name, asked) in asked {
        let found = found.get(name).unwrap_or(&Value::Null);
        let is_same = match name.as_str() {
            // The image has more of them.
            "Env" | "Labels" => contains(found, asked),
            _ => is_same(asked, found),
        };
        if !is_same {
            return Err(format!("{of}.{name}"));
        }
    }
    Ok(())
}

/// Docker leaves out, or makes null, what is empty; or puts it in where it was left out.
fn is_same(asked: &Value, found: &Value) -> bool {
    match (asked, found) {
        (Value::Object(asked), Value::Object(found)) => asked.keys().chain(found.keys()).all(|key| {
            let member = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
            is_same(&member(asked), &member(found))
        }),
        (Value::Array(asked), Value::Array(found)) => {
            asked.len() == found.len() && asked.iter().zip(found).all(|(asked, found)| is_same(asked, found))
        }
        _ => asked == found || (is_empty(asked) && is_empty(found)),
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Array(whole), Value::Array(part)) => part.iter().all(|item| whole.contains(item)),
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key) == Some(value))
        }
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// As JSON; of something that is no object, none.
fn members(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// For tests: changes containers before they are made.
#[cfg(feature = "test-hooks")]
pub struct Tampering {
    pub change: Box<dyn Fn(&mut ContainerCreateBody) + Send + Sync>,
    /// Whether [`check`] still holds the container against what it should have been.
    pub is_checked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, MountPoint};

    fn asked() -> ContainerCreateBody {
        ContainerCreateBody {
            user: Some("65532:65532".to_owned()),
            env: Some(vec!["HOME=/home/cli".to_owned()]),
            host_config: Some(HostConfig {
                privileged: Some(false),
                cap_add: Some(Vec::new()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                pids_limit: Some(32),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// What Docker makes of it: emptiness in other words, and more than was asked for where that is harmless.
    fn found() -> ContainerInspectResponse {
        ContainerInspectResponse {
            config: Some(ContainerConfig {
                user: Some("65532:65532".to_owned()),
                env: Some(vec!["PATH=/bin".to_owned(), "HOME=/home/cli".to_owned()]),
                ..ContainerConfig::default()
            }),
            host_config: Some(HostConfig {
                cap_drop: Some(vec!["ALL".to_owned()]),
                pids_limit: Some(32),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: Some(0),
                }),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn emptiness_has_many_forms() {
        assert_eq!(check(&asked(), &found()), Ok(()));
    }

    #[test]
    fn what_differs_is_named() {
        let differs = |field: &str, change: fn(&mut ContainerInspectResponse, &mut HostConfig)| {
            let mut found = found();
            let mut host = found.host_config.take().unwrap();
            change(&mut found, &mut host);
            found.host_config = Some(host);
            assert_eq!(check(&asked(), &found), Err(field.to_owned()));
        };
        differs("Config.User", |found, _| found.config.as_mut().unwrap().user = Some("0".to_owned()));
        differs("Config.Env", |found, _| found.config.as_mut().unwrap().env = None);
        differs("Config.Env", |found, _| found.config = None);
        differs("HostConfig.PidsLimit", |_, host| host.pids_limit = Some(33));
        differs("HostConfig.PidsLimit", |_, host| host.pids_limit = None);
        differs("HostConfig.CapDrop", |_, host| host.cap_drop = Some(Vec::new()));
        differs("HostConfig.CapAdd", |_, host| host.cap_add = Some(vec!["SYS_ADMIN".to_owned()]));
        differs("HostConfig.Privileged", |_, host| host.privileged = Some(true));
        differs("HostConfig.RestartPolicy", |_, host| {
            host.restart_policy.as_mut().unwrap().maximum_retry_count = Some(1);
        });
    }

    #[test]
    fn mounts_that_nobody_asked_for_are_noticed() {
        let mount = |destination: &str, rw| MountPoint {
            destination: Some(destination.to_owned()),
            rw,
            ..MountPoint::default()
        };
        for (mount, expected) in [
            (mount(PROGRAM, Some(false)), Ok(())),
            (mount(PROGRAM, Some(true)), Err("Mounts".to_owned())),
            (mount(PROGRAM, None), Err("Mounts".to_owned())),
            (mount("/data", Some(false)), Err("Mounts".to_owned())),
        ] {
            let found = ContainerInspectResponse { mounts: Some(vec![mount]), ..found() };
            assert_eq!(check(&asked(), &found), expected);
        }
    }

    /// System calls that no sandbox may have, whoever edits the list.
    #[test]
    fn the_profile_refuses_by_default_and_allows_nothing_dangerous() {
        let profile: Value = serde_json::from_str(SECCOMP).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let rules = profile["syscalls"].as_array().unwrap();
        let names = rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none())
            .flat_map(|rule| rule["names"].as_array().unwrap());
        let allowed: Vec<_> = names.map(|name| name.as_str().unwrap()).collect();
        for dangerous in [
            "add_key",
            "bpf",
            "clone",
            "clone3",
            "fsmount",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "kexec_load",
            "keyctl",
            "mount",
            "open_by_handle_at",
            "perf_event_open",
            "pivot_root",
            "process_vm_writev",
            "ptrace",
            "request_key",
            "setns",
            "socket",
            "socketpair",
            "umount2",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!allowed.contains(&dangerous), "{dangerous}");
        }
    }
}
