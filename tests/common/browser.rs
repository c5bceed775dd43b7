//! A headless Chromium that a test drives over its debugging protocol: two pipes, with a zero byte behind each message.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

/// Longest time for the browser to start and for a page to show something. Chosen: seconds, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest time for it to end by itself. Chosen: it takes a tenth of a second.
const GRACE: Duration = Duration::from_secs(5);

/// The browser with one page, which ends when it is dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    next: u64,
    session: String,
    /// Pages that have loaded.
    loads: usize,
    /// What the page asked for, since the browser started.
    pub requests: Vec<String>,
    /// What the page's console has, errors that the browser adds included.
    pub console: Vec<String>,
}

impl Browser {
    /// Starts it with a profile of its own below `folder`. No name but an address leads anywhere.
    pub fn start(folder: &Path) -> Self {
        let profile = folder.join("profile");
        let line = format!(
            "exec setpriv --pdeathsig KILL -- chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --disable-background-networking --disable-component-update --no-first-run --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' \
             --user-data-dir='{}' --remote-debugging-pipe about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            profile.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (requests, console) = (Vec::new(), Vec::new());
        let session = String::new();
        let mut browser = Browser { child, to, from, next: 0, session, loads: 0, requests, console };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].take();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().into();
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol; gives its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut text = Vec::new();
            self.from.read_until(0, &mut text).unwrap();
            assert_eq!(text.pop(), Some(0), "the browser has ended: {method}");
            let mut told: Value = serde_json::from_slice(&text).unwrap();
            if told["id"] == id {
                assert!(told["error"].is_null(), "{method}: {}", told["error"]);
                return told["result"].take();
            }
            let about = &told["params"];
            match told["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => {
                    self.requests.push(about["request"]["url"].as_str().unwrap().into());
                }
                "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                    self.console.push(about.to_string());
                }
                "Page.loadEventFired" => self.loads += 1,
                _ => {}
            }
        }
    }

    /// Loads a page, until it is there.
    pub fn open(&mut self, url: &str) {
        let loads = self.loads;
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        let begun = Instant::now();
        while self.loads == loads {
            assert!(begun.elapsed() < LIMIT, "{url} does not load");
            // Hears what has happened.
            self.value("0");
        }
    }

    /// The value of an expression of JavaScript in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut told = self.call("Runtime.evaluate", parameters);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        told["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression) != json!(true) {
            if begun.elapsed() > LIMIT {
                let seen = self.value("document.body.innerText");
                panic!(
                    "{expression} does not come true; the page says {seen}, its console {:?}",
                    self.console
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key that has a name, as `Tab` or `Enter`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => panic!("{other} is not known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let parameters =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", parameters);
        }
    }

    /// Types a text where the focus is.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// From now on the page has a window of this size, and is preferred light or dark.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", scheme);
    }

    /// The roles and names that screen readers are told, ignored nodes left out.
    pub fn roles(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let text =
            |node: &Value, member: &str| node[member]["value"].as_str().unwrap_or_default().to_string();
        let nodes = tree["nodes"].as_array().unwrap().iter();
        nodes
            .filter(|node| node["ignored"] == false)
            .map(|node| (text(node, "role"), text(node, "name")))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own processes, which write to the profile until then; a browser that does not listen is killed.
        let close = json!({ "id": self.next + 1, "method": "Browser.close" });
        let _ = self.to.write_all(format!("{close}\0").as_bytes());
        let begun = Instant::now();
        while begun.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
