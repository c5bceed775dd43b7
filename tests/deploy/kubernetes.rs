//! The files for Kubernetes: valid, agreeing with each other, and commands that run. No cluster is asked.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::common::succeed;
use super::{deploy, free_port, healthy, python, read, scratch, settings_exist, yaml, Metadata, Running};

/// File, kind, version of the API, name.
const OBJECTS: [(&str, &str, &str, &str); 6] = [
    ("engine-rdma.yaml", "DaemonSet", "apps/v1", "engine-rdma"),
    ("engine-tcp.yaml", "Deployment", "apps/v1", "engine-tcp"),
    ("metadata-server.yaml", "Deployment", "apps/v1", "metadata-server"),
    ("metadata-server.yaml", "Service", "v1", "metadata-server"),
    ("metadata-server.yaml", "NetworkPolicy", "networking.k8s.io/v1", "metadata-server"),
    ("network-policy.yaml", "NetworkPolicy", "networking.k8s.io/v1", "transfer-engine"),
];

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(deploy("kubernetes")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn object(kind: &str, name: &str) -> Value {
    let mut all = files().into_iter().flat_map(|file| yaml(&file));
    all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
}

fn engines() -> [Value; 2] {
    [object("Deployment", "engine-tcp"), object("DaemonSet", "engine-rdma")]
}

fn pod(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]
}

fn container(object: &Value) -> &Value {
    let containers = pod(object)["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// Names and, where they stand in the file, values of the environment.
fn environment(container: &Value) -> Vec<(&str, Option<&str>)> {
    let variables = container["env"].as_array().unwrap().iter();
    variables.map(|variable| (variable["name"].as_str().unwrap(), variable["value"].as_str())).collect()
}

fn value<'a>(container: &'a Value, name: &str) -> &'a str {
    let found = environment(container).into_iter().find(|(other, _)| *other == name);
    found.and_then(|(_, value)| value).unwrap_or_else(|| panic!("no value of {name}"))
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn objects_are_those_that_are_meant_and_valid() {
    // All in one call, because it takes long to start.
    succeed("kubernetes-validate", Command::new(python("kubernetes-validate")).arg("--strict").args(files()));
    let mut found = Vec::new();
    for file in files() {
        let name = file.file_name().unwrap().to_str().unwrap().to_string();
        for object in yaml(&file) {
            let text = |value: &Value| value.as_str().unwrap().to_string();
            let kind = text(&object["kind"]);
            found.push((name.clone(), kind, text(&object["apiVersion"]), text(&object["metadata"]["name"])));
        }
    }
    let wanted = OBJECTS.map(|(file, kind, version, name)| {
        (file.to_string(), kind.to_string(), version.to_string(), name.to_string())
    });
    assert_eq!(found, wanted);
    let wrong = scratch("kubernetes").join("wrong.yaml");
    std::fs::write(&wrong, read(&files()[0]).replace("containers:", "container:")).unwrap();
    let said = Command::new(python("kubernetes-validate")).arg("--strict").arg(&wrong).output().unwrap();
    assert!(!said.status.success(), "it finds nothing in what is wrong either");
}

#[test]
fn containers_are_of_this_version_take_their_arguments_and_set_what_exists() {
    for object in [&engines()[..], &[object("Deployment", "metadata-server")]].concat() {
        let container = container(&object);
        assert_eq!(container["image"], format!("transfer-engine:{}", env!("CARGO_PKG_VERSION")));
        settings_exist(environment(container).into_iter().map(|(name, _)| name));
        let mut mte = Command::new(env!("CARGO_BIN_EXE_mte"));
        succeed("the arguments", mte.args(words(&container["args"])).arg("--help"));
        assert!(!container["args"].to_string().contains("token"), "a token that everybody sees");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    }
}

#[test]
fn the_policy_admits_engines_to_the_ports_that_engines_take_and_to_no_other() {
    let policy = object("NetworkPolicy", "transfer-engine");
    let ingress = policy["spec"]["ingress"].as_array().unwrap();
    let [peers, prometheus] = &ingress[..] else { panic!("{policy}") };
    assert_eq!(peers["from"][0]["podSelector"], policy["spec"]["podSelector"]);
    assert_eq!(peers["ports"].as_array().unwrap().len(), 1);
    for engine in engines() {
        let chosen = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
        for (label, wanted) in chosen {
            assert_eq!(engine["spec"]["template"]["metadata"]["labels"][label], *wanted);
        }
        let container = container(&engine);
        let [low, high] = ["MC_MIN_RPC_PORT", "MC_MAX_RPC_PORT"].map(|name| value(container, name));
        assert_eq!(peers["ports"][0]["port"].to_string(), low);
        assert_eq!(peers["ports"][0]["endPort"].to_string(), high);
        assert_eq!(prometheus["ports"][0]["port"].to_string(), value(container, "MC_TE_METRIC_HTTP_PORT"));
    }
}

#[test]
fn probes_ask_for_health_where_it_is_served() {
    for engine in engines() {
        let container = container(&engine);
        let port = value(container, "MC_TE_METRIC_HTTP_PORT");
        assert_eq!(value(container, "MC_TE_METRIC"), "1");
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(asked["path"], "/health", "{probe}");
            let named = container["ports"].as_array().into_iter().flatten();
            let named = named.into_iter().find(|other| other["name"] == asked["port"]);
            let number = named.map_or(&asked["port"], |port| &port["containerPort"]);
            assert_eq!(number.to_string(), port, "{probe}");
            // The node asks at the pod's address unless it is told another.
            let served = value(container, "MC_TE_METRIC_HTTP_HOST");
            assert_eq!(served, asked["host"].as_str().unwrap_or("0.0.0.0"), "{probe}");
        }
    }
}

/// Without these, registering memory fails or no NIC is there.
#[test]
fn the_engine_for_rdma_has_what_rdma_needs() {
    let [_, engine] = engines();
    let (pod, container) = (pod(&engine), container(&engine));
    assert_eq!(container["securityContext"]["capabilities"]["add"][0], "IPC_LOCK");
    assert_eq!(container["resources"]["limits"]["rdma/hca"], 1);
    assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&true.into(), &"ClusterFirstWithHostNet".into()));
    for mount in container["volumeMounts"].as_array().unwrap() {
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
}

#[test]
fn an_engine_is_healthy_and_found_with_the_environment_of_the_file() {
    let server = Metadata::start(Some("a token"));
    let store = format!("http://127.0.0.1:{}/metadata", server.port);
    let port = free_port().to_string();
    let [engine, _] = engines();
    let container = container(&engine);
    let with_environment = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
        command.args(
            arguments.iter().map(|word| word.replace("$(STORE)", &store).replace("$(POD_NAME)", "pod")),
        );
        for (name, value) in environment(container) {
            match name {
                "MC_METADATA_HTTP_TOKEN" => command.env(name, "a token"),
                "MC_CLUSTER_KEY" => command.env(name, "0123456789abcdef0123456789abcdef"),
                "MC_TE_METRIC_HTTP_PORT" => command.env(name, &port),
                _ => command.envs(value.map(|value| (name, value))),
            };
        }
        command
    };
    assert_eq!(container["stdin"], true, "it ends when its input does");
    let mut target = with_environment(&words(&container["args"]));
    let _target = Running(target.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    healthy("the engine", || {
        let mut probe = Command::new(deploy("docker/health.sh"));
        probe.arg(&port);
        probe
    });
    healthy("its segment", || with_environment(&["segments", "--metadata", &store, "pod"]));
}
