//! Two engines and a store: the commands of the file, run here as it says, one after the other as it waits for health.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{deploy, free_port, healthy, read, scratch, yaml, DockerStage, Running};

fn compose() -> Value {
    yaml(&deploy("compose/compose.yaml")).remove(0)
}

fn words(list: &Value) -> Vec<String> {
    let items = list.as_array().unwrap_or_else(|| panic!("{list} is no list of words"));
    items
        .iter()
        .map(|word| word.as_str().unwrap_or_else(|| panic!("{word} is no text")).to_string())
        .collect()
}

/// What names and ports are on this machine.
struct Here(Vec<(String, String)>);

impl Here {
    fn of(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
    }

    /// A command of the image that `service` is built from.
    fn command(&self, service: &Value, arguments: &[String]) -> Command {
        let stage = DockerStage::of(service["build"]["target"].as_str().unwrap());
        let program = match stage.entry_point.as_str() {
            "mte" => env!("CARGO_BIN_EXE_mte"),
            other => other,
        };
        let mut command = Command::new(program);
        command.args(arguments.iter().map(|word| self.of(word))).stdin(Stdio::piped());
        for (name, value) in service["environment"].as_object().into_iter().flatten() {
            command.env(name, self.of(value.as_str().unwrap()));
        }
        command
    }
}

#[test]
fn the_services_are_built_from_stages_that_are_there_and_wait_for_health_that_is_checked() {
    let file = compose();
    let services = file["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["etcd", "initiator", "target"]);
    for (name, service) in services {
        let stage = DockerStage::of(service["build"]["target"].as_str().unwrap());
        let dockerfile = service["build"]["dockerfile"].as_str().unwrap();
        let context = deploy("compose").join(service["build"]["context"].as_str().unwrap());
        assert!(context.join(dockerfile).exists(), "{name}: {dockerfile}");
        assert!(stage.has_health_check, "{name}: nobody can wait for it");
        for (other, condition) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(other), "{name} waits for {other}");
            assert_eq!(condition["condition"], "service_healthy", "{name}: {other}");
        }
        super::settings_exist(
            service["environment"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()),
        );
    }
}

#[test]
fn the_commands_move_bytes_between_two_engines_that_find_each_other_in_etcd() {
    let file = compose();
    let services = &file["services"];
    let folder = scratch("compose");
    let [client, peer, target_metrics, own_metrics] = std::array::from_fn(|_| free_port().to_string());
    let mut here = Here(vec![
        ("/var/lib/engines-etcd".into(), folder.join("data").display().to_string()),
        ("0.0.0.0:2379".into(), format!("127.0.0.1:{client}")),
        ("etcd:2379".into(), format!("127.0.0.1:{client}")),
        ("9400".into(), target_metrics),
    ]);
    let etcd = &services["etcd"];
    let mut command = here.command(etcd, &words(&etcd["command"]));
    // A container has its own; two of them here would be in each other's way.
    let url = format!("http://127.0.0.1:{peer}");
    command.args(["--listen-peer-urls", &url, "--initial-advertise-peer-urls", &url, "--log-level", "error"]);
    command.args(["--initial-cluster", &format!("default={url}")]);
    let _etcd = Running(command.stderr(Stdio::null()).spawn().unwrap());
    healthy("etcd", || {
        let mut probe = Command::new(deploy("docker/health.sh"));
        probe.arg(&client);
        probe
    });

    let target = &services["target"];
    assert_eq!(target["stdin_open"], true, "it ends when its input does");
    let _target =
        Running(here.command(target, &words(&target["command"])).stdout(Stdio::null()).spawn().unwrap());
    let test = words(&target["healthcheck"]["test"]);
    assert_eq!(test[..2], ["CMD", "mte"]);
    healthy("the target", || here.command(&serde_json::json!({"build": {"target": "runtime"}}), &test[2..]));

    here.0.last_mut().unwrap().1 = own_metrics;
    let initiator = &services["initiator"];
    let output = here.command(initiator, &words(&initiator["command"])).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{errors}");
    assert!(out.contains("compared: 4 of 4 rows"), "{out}{errors}");
}

#[test]
fn the_page_says_the_command_of_the_file() {
    let first = read(deploy("compose/compose.yaml"));
    let command = first
        .lines()
        .find_map(|line| line.trim_start_matches("# ").trim().strip_prefix("docker compose "))
        .unwrap();
    let page = read(super::common::top().join("docs/src/deploying.md"));
    assert!(page.contains(command), "deploying.md does not say docker compose {command}");
}
