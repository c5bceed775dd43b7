//! Discovery on the trees of `tests/sysfs`, and on systems without NUMA.

#![allow(unsafe_code)]

mod common;
#[path = "sysfs/tree.rs"]
mod tree;

use std::cell::RefCell;

use transfer_engine::error::{Class, Code};
use transfer_engine::topology::discover::Survey;
use transfer_engine::topology::order::hca_order;
use transfer_engine::topology::{survey, Filter, Matrix, Nic, Root};
use tree::Tree;

const TWO_SOCKETS: &str = include_str!("sysfs/two-sockets.txt");

/// The matrix alone.
fn discover(
    root: &Root,
    usable: &dyn Fn(&str) -> bool,
    filters: &[Filter],
) -> transfer_engine::error::Result<Matrix> {
    survey(root, usable, filters).map(|found| found.matrix)
}

fn survey_all(text: &str) -> Survey {
    survey(&Tree::build(text).root(), &|_| true, &[]).unwrap()
}

fn check(text: &str, matrix: &str) {
    let found = survey_all(text);
    assert_eq!(found.matrix, Matrix::parse(matrix).unwrap(), "found {}", found.matrix);
}

fn names(nics: &[Nic]) -> Vec<&str> {
    nics.iter().map(|nic| nic.name.as_str()).collect()
}

#[test]
fn p31_each_socket_prefers_its_nics_and_each_gpu_the_one_on_its_switch() {
    check(
        TWO_SOCKETS,
        r#"{
        "cpu:0": [["mlx5_0","mlx5_1","mlx5_2","mlx5_3"], ["mlx5_4","mlx5_5","mlx5_6","mlx5_7"]],
        "cpu:1": [["mlx5_4","mlx5_5","mlx5_6","mlx5_7"], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3"]],
        "cuda:0": [["mlx5_0"], ["mlx5_1","mlx5_2","mlx5_3","mlx5_4","mlx5_5","mlx5_6","mlx5_7"]],
        "cuda:1": [["mlx5_1"], ["mlx5_0","mlx5_2","mlx5_3","mlx5_4","mlx5_5","mlx5_6","mlx5_7"]],
        "cuda:2": [["mlx5_2"], ["mlx5_0","mlx5_1","mlx5_3","mlx5_4","mlx5_5","mlx5_6","mlx5_7"]],
        "cuda:3": [["mlx5_3"], ["mlx5_0","mlx5_1","mlx5_2","mlx5_4","mlx5_5","mlx5_6","mlx5_7"]],
        "cuda:4": [["mlx5_4"], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3","mlx5_5","mlx5_6","mlx5_7"]],
        "cuda:5": [["mlx5_5"], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3","mlx5_4","mlx5_6","mlx5_7"]],
        "cuda:6": [["mlx5_6"], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3","mlx5_4","mlx5_5","mlx5_7"]],
        "cuda:7": [["mlx5_7"], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3","mlx5_4","mlx5_5","mlx5_6"]]
    }"#,
    );
    let found = survey_all(TWO_SOCKETS);
    assert_eq!(found.notes, [""; 0]);
    // The first row that upstream walks is cuda:7.
    assert_eq!(hca_order(&found.matrix)[..3], ["mlx5_7", "mlx5_0", "mlx5_1"]);
    let nic = &found.nics[5];
    assert_eq!((nic.name.as_str(), nic.pci.as_str(), nic.numa), ("mlx5_5", "0000:aa:00.0", Some(1)));
    assert!(nic.pci_path.ends_with("pci0000:a7/0000:a7:01.0/0000:a8:00.0/0000:a9:01.0/0000:aa:00.0"));
}

#[test]
fn device_files_are_found_by_the_name_of_their_device_not_by_number() {
    let tree = Tree::build(TWO_SOCKETS);
    let root = tree.root();
    // That of mlx5_2.
    std::fs::remove_file(root.dev.join("infiniband/uverbs3")).unwrap();
    let found = survey(&root, &|_| true, &[]).unwrap();
    assert_eq!(names(&found.nics), ["mlx5_0", "mlx5_1", "mlx5_3", "mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7"]);
    assert!(found.notes[0].contains("mlx5_2") && found.notes[0].contains("uverbs3"), "{:?}", found.notes);
    // Its GPU goes to the others of its node, which are equally far.
    let row = found.matrix.rows().iter().find(|row| row.location == "cuda:2").unwrap();
    assert_eq!(row.preferred, ["mlx5_0", "mlx5_1", "mlx5_3"]);
}

#[test]
fn only_filtered_nics_are_taken_and_the_others_are_not_opened() {
    let tree = Tree::build(TWO_SOCKETS);
    let asked = RefCell::new(Vec::new());
    let usable = |name: &str| {
        asked.borrow_mut().push(name.to_string());
        name != "mlx5_1"
    };
    let filters = [Filter::parse("MC_TE_FILTERS", " mlx5_6, mlx5_1 ,,mlx5_6 , eth0")];
    assert_eq!(filters[0].names, ["mlx5_6", "mlx5_1", "mlx5_6", "eth0"]);
    let found = survey(&tree.root(), &usable, &filters).unwrap();
    assert_eq!(names(&found.nics), ["mlx5_6"]);
    assert_eq!(*asked.borrow(), ["mlx5_1", "mlx5_6"]);
    assert_eq!(found.matrix.names(), ["mlx5_6"]);
    assert_eq!(found.matrix.rows().len(), 10);
    let about = |name: &str| found.notes.iter().find(|note| note.contains(name)).unwrap();
    assert!(about("eth0").contains("not an RDMA device"), "{:?}", found.notes);
    assert!(about("mlx5_1").contains("active"), "{:?}", found.notes);
    assert!(about("mlx5_7").contains("MC_TE_FILTERS"), "{:?}", found.notes);
    // That of mlx5_0 cannot be used, which nobody looked at.
    std::fs::write(tree.root().dev.join("infiniband/uverbs5"), "").unwrap();
    let again = survey(&tree.root(), &|_| true, &filters).unwrap();
    assert!(again.notes.iter().any(|note| note.contains("mlx5_0") && note.contains("MC_TE_FILTERS")));
    assert!(Filter::parse("MC_TE_FILTERS", " , ").names.is_empty());
}

#[test]
fn without_a_nic_the_rows_are_there_and_empty() {
    let tree = Tree::build(TWO_SOCKETS);
    let matrix = discover(&tree.root(), &|_| false, &[]).unwrap();
    assert_eq!(matrix.rows().len(), 10);
    assert!(matrix.names().is_empty());
    check("sys/devices/system/node/node0/", r#"{"cpu:0": [[], []]}"#);
}

#[test]
fn virtual_functions_and_sub_functions_are_ordinary_nics() {
    let text = include_str!("sysfs/sr-iov.txt");
    check(
        text,
        r#"{"cpu:0": [["mlx5_0","mlx5_1","mlx5_2","mlx5_3"], []],
            "cpu:1": [[], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3"]]}"#,
    );
    let found = survey_all(text);
    let addresses: Vec<&str> = found.nics.iter().map(|nic| nic.pci.as_str()).collect();
    assert_eq!(addresses, ["0000:17:00.0", "0000:17:00.1", "0000:17:00.2", "0000:17:00.0"]);
}

#[test]
fn a_bond_is_one_nic() {
    let matrix = r#"{"cpu:0": [["mlx5_bond_0"],["mlx5_2"]], "cpu:1": [["mlx5_2"],["mlx5_bond_0"]]}"#;
    check(include_str!("sysfs/bond.txt"), matrix);
}

#[test]
fn nics_of_unknown_node_are_preferred_only_where_all_are_unknown_and_there_is_one_node() {
    check(include_str!("sysfs/rxe.txt"), r#"{"cpu:0": [["rxe0"], []]}"#);
    check(include_str!("sysfs/guest.txt"), r#"{"cpu:0": [["mlx5_0"], []], "cuda:0": [["mlx5_0"], []]}"#);
    let second = "sys/devices/system/node/node1/\n";
    check(
        &format!("{second}{}", include_str!("sysfs/guest.txt")),
        r#"{"cpu:0": [[], ["mlx5_0"]], "cpu:1": [[], ["mlx5_0"]], "cuda:0": [["mlx5_0"], []]}"#,
    );
    let text = include_str!("sysfs/rxe-and-nic.txt");
    check(
        &text.replace(second, ""),
        r#"{"cpu:0": [["mlx5_0"], ["rxe0"]], "cuda:0": [["mlx5_0"], ["rxe0"]],
            "cuda:1": [["mlx5_0"], ["rxe0"]]}"#,
    );
    check(
        text,
        r#"{"cpu:0": [["mlx5_0"], ["rxe0"]], "cpu:1": [[], ["mlx5_0", "rxe0"]],
            "cuda:0": [["mlx5_0"], ["rxe0"]], "cuda:1": [["mlx5_0"], ["rxe0"]]}"#,
    );
    let found = survey_all(text);
    let rxe = Nic { name: "rxe0".into(), ..Nic::default() };
    assert_eq!(found.nics[1], rxe);
    assert_eq!(found.notes.len(), 1);
    assert!(found.notes[0].contains("rxe0"), "{:?}", found.notes);
}

#[test]
fn without_the_folders_of_nodes_every_nic_is_near_every_processor() {
    let found = survey_all(include_str!("sysfs/no-nodes.txt"));
    assert_eq!(found.matrix.to_string(), r#"{"cpu:0":[["mlx5_0","mlx5_1"],[]]}"#);
    assert_eq!(found.notes.len(), 1);
}

#[test]
fn p31_nics_whose_device_file_cannot_be_used_are_left_out_with_the_reason() {
    let found = survey_all(include_str!("sysfs/container.txt"));
    assert_eq!(names(&found.nics), ["mlx5_0"]);
    for (nic, reason) in
        [("mlx5_1", "permission denied"), ("mlx5_2", "No such file"), ("mlx5_3", "ib_uverbs")]
    {
        let note = found.notes.iter().find(|note| note.contains(nic)).unwrap();
        assert!(note.contains(reason), "{note}");
    }
}

#[test]
fn a_gpu_prefers_all_nics_at_the_smallest_distance_on_its_node() {
    check(
        include_str!("sysfs/amd.txt"),
        r#"{"cpu:0": [["mlx5_0","mlx5_1","mlx5_2"], ["mlx5_3"]],
            "cpu:1": [["mlx5_3"], ["mlx5_0","mlx5_1","mlx5_2"]],
            "cpu:2": [[], ["mlx5_0","mlx5_1","mlx5_2","mlx5_3"]],
            "hip:0": [["mlx5_0","mlx5_1"], ["mlx5_2","mlx5_3"]],
            "hip:1": [["mlx5_0","mlx5_1"], ["mlx5_2","mlx5_3"]],
            "hip:2": [["mlx5_3"], ["mlx5_0","mlx5_1","mlx5_2"]],
            "hip:3": [["mlx5_2","mlx5_3"], ["mlx5_0","mlx5_1"]]}"#,
    );
}

#[test]
fn a_nic_that_is_not_there_is_known_by_name_only() {
    let tree = Tree::build(include_str!("sysfs/bond.txt"));
    assert_eq!(Nic::read(&tree.root(), "mlx5_bond_0").numa, Some(0));
    for name in ["mlx5_9", "", "..", "../../devices/pci0000:3a"] {
        assert_eq!(Nic::read(&tree.root(), name), Nic { name: name.into(), ..Nic::default() });
    }
}

#[test]
fn the_nodes_of_this_machine_are_its_rows() {
    let Ok(folder) = std::fs::read_dir("/sys/devices/system/node") else {
        println!("SKIP the nodes of this machine: it shows none");
        return;
    };
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let nodes = names.filter_map(|name| name.strip_prefix("node").map(|number| format!("cpu:{number}")));
    let matrix = discover(&Root::default(), &|_| true, &[]).unwrap();
    let rows = matrix.rows().iter().map(|row| row.location.clone());
    let mut nodes: Vec<String> = nodes.collect();
    nodes.sort();
    assert_eq!(rows.filter(|row| row.starts_with("cpu:")).collect::<Vec<_>>(), nodes);
}

#[test]
fn without_folders_of_nodes_and_get_mempolicy_there_is_no_numa() {
    if common::in_child("without_folders_of_nodes_and_get_mempolicy_there_is_no_numa", &[]) {
        return;
    }
    let (empty, one) = (Tree::build(""), Tree::build("sys/devices/system/node/node0/"));
    let find = |tree: &Tree| discover(&tree.root(), &|_| true, &[]);
    refuse_get_mempolicy(libc::ENOSYS);
    let error = find(&empty).unwrap_err();
    assert_eq!((error.code(), error.kind(), error.errno()), (Code::Numa, Class::Unsupported, libc::ENOSYS));
    for part in ["devices/system/node", "get_mempolicy", "MC_CUSTOM_TOPO_JSON"] {
        assert!(error.text().contains(part), "{error}");
    }
    assert_eq!(find(&one).unwrap().to_string(), r#"{"cpu:0":[[],[]]}"#);
}

#[test]
fn with_get_mempolicy_alone_there_is_numa() {
    if common::in_child("with_get_mempolicy_alone_there_is_numa", &[]) {
        return;
    }
    if get_mempolicy() != 0 {
        println!("SKIP: this system refuses get_mempolicy");
        return;
    }
    let matrix = discover(&Tree::build("").root(), &|_| true, &[]).unwrap();
    assert_eq!(matrix.to_string(), r#"{"cpu:0":[[],[]]}"#);
    // A folder that is called like a node but is none.
    let text = "sys/devices/system/node/node0 = 1\nsys/devices/system/node/nodex/";
    refuse_get_mempolicy(libc::EPERM);
    assert_eq!(get_mempolicy(), libc::EPERM);
    let error = discover(&Tree::build(text).root(), &|_| true, &[]).unwrap_err();
    assert_eq!((error.code(), error.errno()), (Code::Numa, libc::EPERM));
}

/// 0, or the errno.
fn get_mempolicy() -> i32 {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: every output is optional.
    let result = unsafe { libc::syscall(libc::SYS_get_mempolicy, null, null, 0usize, null, 0usize) };
    match result {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap(),
    }
}

/// From now on the system call fails with `errno` on this thread.
fn refuse_get_mempolicy(errno: i32) {
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut steps = [
        // The number is the first word of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_get_mempolicy as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: has no memory arguments.
    let locked = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its steps live until the call returns.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!((locked, set), (0, 0), "{}", std::io::Error::last_os_error());
}
