//! Each setting of a sandbox's container is checked, and is there for a reason: without it, some attack succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    RestartPolicy, RestartPolicyNameEnum,
};
use dyad_runner::sandbox::{Engine, Output, SandboxError, Tampering};

use crate::escape::try_attack;
use crate::support::{TestNode, attacker, run, spec};
use Shown::{By, NotBy};

/// A setting, dropped or made dangerous.
struct Weakening {
    /// As [`SandboxError::NotHardened`] names it.
    field: &'static str,
    change: fn(&mut ContainerCreateBody),
    shown: Shown,
}

enum Shown {
    /// The attack of [`crate::escape`] that then has another outcome.
    By(&'static str),
    /// Why no attack shows it.
    NotBy(#[expect(dead_code, reason = "for the reader")] &'static str),
}

const fn weakening(field: &'static str, change: fn(&mut ContainerCreateBody), shown: Shown) -> Weakening {
    Weakening { field, change, shown }
}

fn of_host(body: &mut ContainerCreateBody) -> &mut HostConfig {
    body.host_config.as_mut().unwrap()
}

/// Docker has options of its own, which have to be contradicted.
fn with_option(body: &mut ContainerCreateBody, place: &str, option: &str) {
    let options = of_host(body).tmpfs.as_mut().unwrap().get_mut(place).unwrap();
    *options = format!("{options},{option}");
}

fn without_option(body: &mut ContainerCreateBody, place: &str, option: &str) {
    let options = of_host(body).tmpfs.as_mut().unwrap().get_mut(place).unwrap();
    let kept: Vec<_> = options.split(',').filter(|kept| !kept.starts_with(option)).collect();
    assert!(kept.len() < options.split(',').count(), "{option}");
    *options = kept.join(",");
}

fn without_security_option(body: &mut ContainerCreateBody, option: &str) {
    of_host(body).security_opt.as_mut().unwrap().retain(|kept| !kept.starts_with(option));
}

fn without_limit(body: &mut ContainerCreateBody, limit: &str) {
    of_host(body).ulimits.as_mut().unwrap().retain(|kept| kept.name.as_deref() != Some(limit));
}

const WEAKENINGS: &[Weakening] = &[
    weakening("Config.User", |body| body.user = None, By("uid")),
    weakening("Config.Hostname", |body| body.hostname = None, By("hostname-is")),
    weakening(
        "HostConfig.NetworkMode",
        |body| of_host(body).network_mode = Some("host".to_owned()),
        By("interfaces"),
    ),
    weakening("HostConfig.IpcMode", |body| of_host(body).ipc_mode = None, By("write-shm")),
    weakening("HostConfig.PidMode", |body| of_host(body).pid_mode = Some("host".to_owned()), By("processes")),
    weakening(
        "HostConfig.UTSMode",
        |body| {
            body.hostname = None;
            of_host(body).uts_mode = Some("host".to_owned());
        },
        By("hostname-is"),
    ),
    weakening(
        "HostConfig.CgroupnsMode",
        |body| of_host(body).cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST),
        By("cgroup-paths"),
    ),
    weakening(
        "HostConfig.UsernsMode",
        |body| of_host(body).userns_mode = Some("host".to_owned()),
        NotBy("only an engine that maps users has anything to turn off"),
    ),
    weakening("HostConfig.Privileged", |body| of_host(body).privileged = Some(true), By("devices")),
    weakening(
        "HostConfig.CapAdd",
        |body| of_host(body).cap_add = Some(vec!["SYS_ADMIN".to_owned()]),
        By("capabilities"),
    ),
    weakening("HostConfig.CapDrop", |body| of_host(body).cap_drop = None, By("capabilities")),
    weakening("HostConfig.SecurityOpt", |body| without_security_option(body, "no-new"), By("setuid-program")),
    weakening(
        "HostConfig.SecurityOpt",
        |body| without_security_option(body, "seccomp"),
        By("netlink-socket"),
    ),
    weakening("HostConfig.ReadonlyRootfs", |body| of_host(body).readonly_rootfs = None, By("write-root")),
    weakening(
        "HostConfig.Tmpfs",
        |body| drop(of_host(body).tmpfs.as_mut().unwrap().remove("/workspace")),
        By("mounts"),
    ),
    weakening("HostConfig.Tmpfs", |body| with_option(body, "/tmp", "exec"), By("exec-tmp")),
    weakening(
        "HostConfig.Tmpfs",
        |body| without_option(body, "/home/cli", "nr_inodes"),
        By("tmpfs-inodes=1000"),
    ),
    weakening("HostConfig.Tmpfs", |body| without_option(body, "/workspace", "size"), By("tmpfs-bytes=16")),
    weakening("HostConfig.Tmpfs", |body| with_option(body, "/tmp", "suid"), By("mounts")),
    weakening("HostConfig.Tmpfs", |body| with_option(body, "/tmp", "dev"), By("mounts")),
    weakening(
        "HostConfig.Mounts",
        |body| of_host(body).mounts.as_mut().unwrap()[0].read_only = Some(false),
        By("read-only=/dyad-sandbox-init"),
    ),
    weakening(
        "HostConfig.Binds",
        |body| of_host(body).binds = Some(vec!["/tmp:/host".to_owned()]),
        By("mounts"),
    ),
    weakening(
        "HostConfig.VolumesFrom",
        |body| of_host(body).volumes_from = Some(vec!["somebody".to_owned()]),
        NotBy("there is nobody to take them from"),
    ),
    weakening(
        "HostConfig.Devices",
        |body| {
            of_host(body).devices = Some(vec![DeviceMapping {
                path_on_host: Some("/dev/zero".to_owned()),
                path_in_container: Some("/dev/other".to_owned()),
                cgroup_permissions: Some("rwm".to_owned()),
            }]);
        },
        By("devices"),
    ),
    weakening(
        "HostConfig.DeviceRequests",
        |body| of_host(body).device_requests = Some(vec![DeviceRequest::default()]),
        NotBy("the test's host has no driver for them"),
    ),
    weakening(
        "HostConfig.DeviceCgroupRules",
        |body| of_host(body).device_cgroup_rules = Some(vec!["c *:* rwm".to_owned()]),
        NotBy("there is no node of such a device, and none can be made"),
    ),
    weakening(
        "HostConfig.MaskedPaths",
        |body| of_host(body).masked_paths = Some(Vec::new()),
        By("masked=/proc/cmdline"),
    ),
    weakening(
        "HostConfig.ReadonlyPaths",
        |body| of_host(body).readonly_paths = Some(Vec::new()),
        By("read-only=/proc/sys"),
    ),
    weakening(
        "HostConfig.Memory",
        |body| {
            of_host(body).memory = None;
            of_host(body).memory_swap = None;
        },
        By("memory-bomb"),
    ),
    weakening("HostConfig.MemorySwap", |body| of_host(body).memory_swap = None, By("swap-is")),
    weakening(
        "HostConfig.OomKillDisable",
        |body| of_host(body).oom_kill_disable = Some(true),
        NotBy("the attack would hang instead of ending, and control groups of version 2 do not have it"),
    ),
    weakening("HostConfig.OomScoreAdj", |body| of_host(body).oom_score_adj = None, By("oom-score-is")),
    weakening("HostConfig.NanoCpus", |body| of_host(body).nano_cpus = None, By("burn")),
    weakening("HostConfig.PidsLimit", |body| of_host(body).pids_limit = None, By("fork-bomb")),
    weakening("HostConfig.Ulimits", |body| without_limit(body, "nofile"), By("limit=open files")),
    weakening("HostConfig.Ulimits", |body| without_limit(body, "fsize"), By("long-file=2")),
    weakening("HostConfig.Ulimits", |body| without_limit(body, "core"), By("limit=core file size")),
    weakening("HostConfig.Ulimits", |body| without_limit(body, "msgqueue"), By("write-mqueue")),
    weakening("HostConfig.Init", |body| of_host(body).init = None, By("orphans")),
    weakening(
        "HostConfig.LogConfig",
        |body| of_host(body).log_config = None,
        NotBy("it shows outside: what_is_printed_is_not_written_down"),
    ),
    weakening("HostConfig.Dns", |body| of_host(body).dns = None, By("resolvers")),
    weakening(
        "HostConfig.DnsSearch",
        |body| of_host(body).dns_search = None,
        NotBy("the host may have no search list to show"),
    ),
    weakening(
        "HostConfig.AutoRemove",
        |body| of_host(body).auto_remove = Some(true),
        NotBy("it is about who removes the container, not about what runs in it"),
    ),
    weakening(
        "HostConfig.RestartPolicy",
        |body| {
            of_host(body).restart_policy =
                Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None });
        },
        NotBy("it is about what comes after the end"),
    ),
    weakening(
        "Config.Healthcheck",
        |body| body.healthcheck = Some(HealthConfig::default()),
        NotBy("the test's image has none"),
    ),
];

async fn tampered_engine(
    node: &TestNode,
    change: impl Fn(&mut ContainerCreateBody) + Send + Sync + 'static,
    is_checked: bool,
) -> Engine {
    let tampering = Tampering { change: Box::new(change), is_checked };
    Engine::connect_tampering(&node.config, tampering).await.unwrap()
}

#[tokio::test]
async fn without_a_setting_an_attack_succeeds() {
    let node = TestNode::new();
    let prepared = attacker(&node.engine().await).await;
    let mut useless = Vec::new();
    for weakening in WEAKENINGS {
        let By(attack) = weakening.shown else { continue };
        let engine = tampered_engine(&node, weakening.change, false).await;
        if try_attack(&engine, &prepared, attack).await.is_ok() {
            useless.push(format!("{}: {attack}", weakening.field));
        }
    }
    assert_eq!(useless, Vec::<String>::new());
}

/// The check itself: a container that is not as it must be is never started.
#[tokio::test]
async fn a_setting_that_was_not_taken_is_noticed() {
    let node = TestNode::new();
    let prepared = attacker(&node.engine().await).await;
    for weakening in WEAKENINGS {
        let engine = tampered_engine(&node, weakening.change, true).await;
        let error = engine.start(spec(&prepared, &["/attacker", "ready"])).await.unwrap_err();
        match error {
            // Of two fields, the first is named.
            SandboxError::NotHardened { field } => assert!(
                field == weakening.field || field == "Config.Hostname",
                "{field} instead of {}",
                weakening.field
            ),
            // Docker itself refuses some.
            SandboxError::Docker { doing, .. } => assert_eq!(doing, "creating the container"),
            error => panic!("{}: {error}", weakening.field),
        }
    }
    assert!(node.containers().is_empty());
}

/// A setting that is added later has to be shown useful, too.
#[tokio::test]
async fn no_setting_is_forgotten() {
    let node = TestNode::new();
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let engine = {
        let seen = Arc::clone(&seen);
        let look = move |body: &mut ContainerCreateBody| {
            *seen.lock().unwrap() =
                serde_json::from_value(serde_json::to_value(of_host(body)).unwrap()).unwrap();
        };
        tampered_engine(&node, look, true).await
    };
    let prepared = attacker(&engine).await;
    engine.start(spec(&prepared, &["/attacker", "ready"])).await.unwrap().remove().await;
    let seen: BTreeMap<String, serde_json::Value> = seen.lock().unwrap().clone();
    let seen: BTreeSet<_> = seen.keys().map(|name| format!("HostConfig.{name}")).collect();
    let tried = WEAKENINGS.iter().map(|weakening| weakening.field.to_owned());
    let tried: BTreeSet<_> = tried.filter(|field| field.starts_with("HostConfig")).collect();
    assert_eq!(seen, tried);
}

/// Why a sandbox has a network namespace of its own, though one that it shared with others would be made sooner.
#[tokio::test]
async fn a_shared_network_would_not_isolate() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let mut neighbour = engine.start(spec(&prepared, &["/attacker", "secrets"])).await.unwrap();
    assert_eq!(neighbour.output.recv().await, Some(Output::Stdout("waiting\n".into())));
    let mode = format!("container:{}", neighbour.id);
    let share = move |body: &mut ContainerCreateBody| {
        body.hostname = None;
        let host = of_host(body);
        host.network_mode = Some(mode.clone());
        (host.dns, host.dns_search) = (None, None);
    };
    let sharing = tampered_engine(&node, share, false).await;
    let attacks = ["/attacker", "connect=127.0.0.1:7777", "abstract-socket=dyad-neighbour"];
    let finished = run(&sharing, spec(&prepared, &attacks), b"").await;
    assert_eq!(finished.text(), "connect=127.0.0.1:7777 done\nabstract-socket=dyad-neighbour done\n");
    neighbour.remove().await;
}
