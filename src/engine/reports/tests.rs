//! The two forms of `showLinks`.

use super::*;

fn shown() -> Shown {
    let matrix = Matrix::parse(r#"{"cpu:0":[["mlx5_0"],["mlx5_1"]],"cuda:0":[["mlx5_1"],[]]}"#).unwrap();
    Shown { nics: Vec::new(), rails: Vec::new(), matrix, fallbacks: Vec::new() }
}

fn used() -> Shown {
    let nic = |name: &str, active, last_error: &str| NicReport {
        name: name.into(),
        source: "rdma_transport",
        lid: 0,
        gid: "fe:80".into(),
        gid_index: 3,
        port: 1,
        speed_gbps: 100,
        active,
        inflight_bytes: 7,
        bandwidth_bps: 1.5e9,
        last_error: last_error.into(),
    };
    let rail = RailReport {
        local: "mlx5_0".into(),
        peer: "host:1@mlx5_9".into(),
        state: "paused",
        inflight_bytes: 0,
        waiting: 2,
        completed: 40,
        failures: 1,
        last_error: "transport retry counter exceeded".into(),
    };
    Shown {
        nics: vec![(nic("mlx5_0", true, ""), 0), (nic("mlx5_1", false, "the port is down"), -1)],
        rails: vec![rail],
        fallbacks: vec![("fallback_transport", 5)],
        ..shown()
    }
}

#[test]
fn without_the_transport_the_nics_are_those_of_the_topology() {
    let empty = Shown { matrix: Matrix::default(), ..shown() };
    assert_eq!(empty.json(), json!({"local_nics": [], "topology": null}));
    assert_eq!(empty.text(), "=== Local NICs ===\n  (no RDMA devices found)\n");
    let listed = shown().json();
    let names: Vec<_> = listed["local_nics"].as_array().unwrap().iter().map(|nic| &nic["device"]).collect();
    assert_eq!(names, ["mlx5_0", "mlx5_1"]);
    let expected = json!({"device": "mlx5_0", "numa": -1, "gid": "", "gid_index": -1, "port": 0,
        "speed_gbps": 0, "source": "topology"});
    assert_eq!(listed["local_nics"][0], expected);
    assert_eq!(listed["topology"]["cuda:0"], json!([["mlx5_1"], []]));
    assert!(shown()
        .text()
        .ends_with("\n  cpu:0 -> preferred: [mlx5_0]  available: [mlx5_1]\n  cuda:0 -> preferred: [mlx5_1]  available: []\n"));
}

#[test]
fn nics_and_rails_are_shown_with_their_state_and_last_error() {
    let json = used().json();
    let first = &json["local_nics"][0];
    assert_eq!((&first["source"], &first["state"]), (&json!("rdma_transport"), &json!("active")));
    assert_eq!((&first["gid_index"], &first["speed_gbps"]), (&json!(3), &json!(100)));
    assert_eq!(json["local_nics"][1]["state"], "down");
    assert_eq!(json["local_nics"][1]["last_error"], "the port is down");
    assert_eq!(json["rails"][0]["peer"], "host:1@mlx5_9");
    assert_eq!(json["rails"][0]["last_error"], "transport retry counter exceeded");
    assert_eq!(json["fallbacks"], json!({"fallback_transport": 5}));
    let text = used().text();
    for part in [
        "mlx5_1: down",
        "the port is down",
        "mlx5_0 -> host:1@mlx5_9: paused",
        "retry counter",
        "fallback_transport: 5",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
