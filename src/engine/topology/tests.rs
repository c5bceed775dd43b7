//! Where the matrix comes from.

use super::*;

/// A file of this test process, removed at the end.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("te-topology-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn origin(path: &str) -> (Vec<String>, &'static str) {
    let config = Config { custom_topo_json: Some(path.into()), ..Config::default() };
    let (matrix, origin) = found(&config, &caller_filter("")).unwrap();
    (matrix.names(), origin)
}

#[test]
fn the_file_comes_before_discovery_unless_it_is_of_no_use() {
    let good = File::new("good", r#"{"cpu:0":[["b","a"],["c"]],"cpu:1":[["c"],["a"]]}"#);
    let names = ["b", "a", "c"].map(String::from).to_vec();
    assert_eq!(origin(good.0.to_str().unwrap()), (names, "MC_CUSTOM_TOPO_JSON"));
    for (name, text) in [("empty", ""), ("broken", "{"), ("list", "[]")] {
        let bad = File::new(name, text);
        assert_eq!(origin(bad.0.to_str().unwrap()).1, "discovery", "{text}");
    }
    assert_eq!(origin("/no/such/file").1, "discovery");
}
