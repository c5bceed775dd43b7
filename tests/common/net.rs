//! Two network namespaces with two links between them. Needs root and `ip`.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::process::Command;

use serde_json::Value;

/// Tells processes that are started the name of the namespaces.
const NAME: &str = "TRANSFER_ENGINE_TEST_NET";
/// The setting for both devices, whose names are the same in both namespaces.
pub const BOTH: (&str, &str) = ("MC_TCP_NICS", "eth1,eth2");

/// Two namespaces, `a` and `b`, that end with this. `eth1` has 10.77.1.1 in `a` and 10.77.1.2 in `b`, `eth2` the like.
pub struct Net {
    name: String,
}

impl Net {
    /// Makes them; `None`, and says why, where that does not work.
    pub fn new(test: &str) -> Option<Self> {
        let net = Net { name: format!("te{}", std::process::id()) };
        match net.set_up() {
            Ok(()) => {
                std::env::set_var(NAME, &net.name);
                Some(net)
            }
            Err(why) => {
                println!("SKIP {test}: no network namespaces here: {why}");
                None
            }
        }
    }

    pub fn space(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    fn set_up(&self) -> Result<(), String> {
        let [a, b] = ["a", "b"].map(|side| self.space(side));
        for space in [&a, &b] {
            ip(&["netns", "add", space])?;
            ip(&["-n", space, "link", "set", "lo", "up"])?;
        }
        for device in ["eth1", "eth2"] {
            ip(&["link", "add", device, "netns", &a, "type", "veth", "peer", "name", device, "netns", &b])?;
            for (space, host) in [(&a, 1), (&b, 2)] {
                let address = format!("10.77.{}.{host}/24", &device[3..]);
                ip(&["-n", space, "address", "add", &address, "dev", device])?;
                ip(&["-n", space, "link", "set", device, "up"])?;
            }
        }
        Ok(())
    }

    /// Sets a device up or down.
    pub fn set(&self, side: &str, device: &str, state: &str) {
        ip(&["-n", &self.space(side), "link", "set", device, state]).unwrap();
    }

    /// Bytes that went over a link so far, in both directions.
    pub fn bytes(&self, device: &str) -> u64 {
        let text = ip(&["-n", &self.space("b"), "-s", "-j", "link", "show", device]).unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        let count = |way: &str| shown[0]["stats64"][way]["bytes"].as_u64().unwrap();
        count("rx") + count("tx")
    }

    /// Both links.
    pub fn both(&self) -> [u64; 2] {
        ["eth1", "eth2"].map(|device| self.bytes(device))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for side in ["a", "b"] {
            let _ = ip(&["netns", "delete", &self.space(side)]);
        }
    }
}

/// What `ip` prints, or what it complains of.
pub fn ip(arguments: &[&str]) -> Result<String, String> {
    run("ip", arguments)
}

pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// Address of a side on the first link.
pub fn address(side: &str) -> &'static str {
    match side {
        "a" => "10.77.1.1",
        _ => "10.77.1.2",
    }
}

/// Runs `work` on a thread in a namespace of the one [`Net`] of this process, or of the process that started it.
pub fn inside<T: Send>(side: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/var/run/netns/{}{side}", std::env::var(NAME).unwrap());
    let enter_and_work = move || {
        let space = std::fs::File::open(&path).unwrap();
        // SAFETY: a live descriptor; only this thread changes its namespace.
        let entered = unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter_and_work).join().unwrap())
}
