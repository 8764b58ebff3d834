//! `dyad-runner run`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{ECHO, Place, SLEEPER, eventually};

const PROCESSES: &str = "engine = { allow_process = true }";

#[test]
fn the_answer_is_on_standard_output_and_nothing_else() {
    let place = Place::new("", ECHO);
    let prompt = "Grüße\u{2028}\nline two \u{1f600}";
    let ran = place.run_with(&["run", "cli-echo"], prompt).expect(0);
    assert!(ran.stdout.contains(prompt), "{ran:#?}");
    assert!(place.containers().is_empty(), "{:?}", place.containers());
    let events = place.run_with(&["run", "cli-echo", "--json"], prompt).expect(0).json();
    assert_eq!(events[0]["type"], "started", "{events:#?}");
    assert_eq!(events.last().unwrap()["type"], "finished", "{events:#?}");
}

#[test]
fn what_a_cli_does_not_take_is_refused() {
    let place = Place::new("", ECHO);
    let ran = place.run_with(&["run", "cli-echo", "--param", "model=x"], "Hello").expect(2);
    assert!(ran.stderr.contains("model"), "{ran:#?}");
    assert!(ran.stdout.is_empty(), "{ran:#?}");
}

#[test]
fn the_exit_code_tells_the_class() {
    let cli = |name: &str, script: &str, limits: &str| {
        format!(
            "[[cli]]\nname = \"{name}\"\ndialect = \"text\"\nisolation = \"process\"\nargv = [\"sh\", \"-c\", \"{script}\"]\n[cli.limits]\n{limits}\n"
        )
    };
    let crashes = cli("crashes", "cat > /dev/null; echo half; exit 3", "");
    let hangs = cli("hangs", "cat > /dev/null; echo half; exec sleep 1000", "idle_time = \"1s\"");
    let place = Place::new(PROCESSES, &format!("{crashes}{hangs}"));
    for (name, code) in [("crashes", 1), ("hangs", 14)] {
        let ran = place.run_with(&["run", name], "Hello").expect(code);
        assert!(ran.stdout.starts_with("half"), "{ran:#?}");
        assert!(ran.stderr.contains("error: "), "{ran:#?}");
    }
}

#[test]
fn a_cli_that_cannot_be_started_says_why() {
    let cli = ECHO.replace("{ builtin = \"echo\" }", "{ local = \"dyad-cli-echo:none\" }");
    let place = Place::new("", &format!("{}argv = [\"x\"]\n", cli.split("[cli.limits]").next().unwrap()));
    let ran = place.run_with(&["run", "cli-echo"], "Hello").expect(1);
    assert!(ran.stderr.contains("dyad-cli-echo:none"), "{ran:#?}");
    let program = "[[cli]]\nname = \"gone\"\ndialect = \"text\"\nmode = \"parked\"\nisolation = \"process\"\nargv = [\"/no/such/program\"]\n";
    let place = Place::new(PROCESSES, program);
    let ran = place.run_with(&["run", "gone"], "Hello").expect(1);
    assert!(ran.stderr.contains("/no/such/program: No such file"), "{ran:#?}");
}

#[test]
fn an_interrupt_ends_the_cli() {
    let place = Place::new(PROCESSES, SLEEPER);
    let mut command = place.command(&["run", "sleeper"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "asleep\n");
    // One at a time: each would take the other's sandboxes for orphans.
    let ran = place.run_with(&["run", "sleeper"], "Hello").expect(1);
    assert!(ran.stderr.contains("another runner"), "{ran:#?}");
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
}
