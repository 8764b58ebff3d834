use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::*;

/// A plan for a data directory with this file in it.
fn plan(data_dir: &Path, text: &str) -> Plan {
    let data_dir = DataDir::locate(Some(data_dir));
    data_dir.create().unwrap();
    fs::write(data_dir.runner_file(), text).unwrap();
    Plan::make(&data_dir).unwrap_or_else(|error| panic!("{}", error_chain(&error)))
}

fn entry(name: &str, image: &str) -> String {
    format!("[[cli]]\nname = \"{name}\"\ndialect = \"text\"\nargv = [\"x\"]\nimage = {image}\n")
}

#[test]
fn one_entry_that_is_wrong_leaves_the_others_as_they_are() {
    let place = tempfile::tempdir().unwrap();
    let good = "{ local = \"a:1\" }";
    let unnamed = "[[cli]]\ndialect = \"text\"\n";
    let text =
        [&entry("bad", "\"a:1\""), &entry("one", good), unnamed, &entry("two", good), &entry("one", good)]
            .map(str::to_owned)
            .concat();
    let plan = plan(place.path(), &text);
    assert_eq!(plan.names(), ["one", "two", ECHO]);
    let left_out: Vec<_> = plan.left_out().iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    let [("one", twice), ("[[cli]] number 3", unnamed), ("bad", bad)] = left_out[..] else {
        panic!("{left_out:?}")
    };
    assert!(twice.starts_with("name: another [[cli]]") && bad.starts_with("image: "), "{left_out:?}");
    assert!(unnamed.contains("name: ") && unnamed.contains("; argv: "), "{left_out:?}");
}

#[test]
fn what_is_wrong_with_the_file_as_a_whole_is_said() {
    let place = tempfile::tempdir().unwrap();
    let data_dir = DataDir::locate(Some(place.path()));
    for (text, what) in [
        ("[capacity]\nrunz = 1\n", "capacity.runz"),
        ("cli = 1", "cli"),
        ("[", "TOML"),
        ("[registry]\n", "registry: "),
    ] {
        fs::write(data_dir.runner_file(), text).unwrap();
        let error = Plan::make(&data_dir).err().unwrap().to_string();
        assert!(error.contains(what) && error.contains("runner.toml"), "{error}");
    }
}

#[test]
fn a_long_path_of_the_data_directory_is_no_obstacle() {
    let place = tempfile::tempdir().unwrap();
    let plan = plan(&place.path().join("christopher.mueller/.local/share/dyad-gateway"), "");
    assert_eq!(plan.names(), [ECHO]);
    let state_dir = &plan.config.state_dir;
    assert!(state_dir.starts_with("/var/tmp") && state_dir.is_dir(), "{state_dir:?}");
    fs::remove_dir(state_dir).unwrap();
}

#[test]
fn the_engine_is_the_files_or_the_one_of_docker_host() {
    let place = tempfile::tempdir().unwrap();
    let certificates = LocalCertificates::in_directory(place.path());
    let socket = |text: &str, docker_host: Option<&str>| {
        let mut table = text.parse().unwrap();
        let docker_host = docker_host.map(OsStr::new);
        let state_dir = Path::new("/s");
        let machine = Machine { id: "n", certificates: &certificates, state_dir, docker_host };
        file::fill_in(&mut table, &machine).map_err(|error| error.to_string())?;
        Ok::<_, String>(file::check(table, place.path()).unwrap().config.engine.socket)
    };
    let usual = socket("", None).unwrap();
    assert_eq!(usual, Path::new("/var/run/docker.sock"));
    assert_eq!(socket("", Some("")).unwrap(), usual);
    assert_eq!(
        socket("", Some("unix:///run/user/1/docker.sock")).unwrap(),
        Path::new("/run/user/1/docker.sock")
    );
    let file = "[engine]\nsocket = \"/a.sock\"\n";
    for other in ["unix:///b.sock", "tcp://10.0.0.1:2375"] {
        assert_eq!(socket(file, Some(other)).unwrap(), Path::new("/a.sock"));
    }
    for elsewhere in ["tcp://10.0.0.1:2375", "ssh://a", "unix://relative.sock"] {
        assert!(socket("", Some(elsewhere)).unwrap_err().contains(elsewhere));
    }
}
