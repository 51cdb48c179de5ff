//! A real browser without a screen, for tests of pages: Chromium, told what to do by WebDriver.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::packages;

/// What a browser is made of.
const PACKAGES: &[&str] = &["chromium", "chromium-driver"];

/// How long the browser may take for one command.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running browser with one window; it ends with this value.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
    http: ureq::Agent,
    session: String,
    // Where the browser keeps its profile.
    _profile: tempfile::TempDir,
}

/// The process of the driver, ended when dropped.
#[derive(Debug)]
struct Driver {
    process: Child,
    address: String,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser's processes; without this they would outlive it.
        _ = self.http.delete(&self.session).call();
    }
}

/// Keys of WebDriver that are no characters.
pub mod keys {
    /// Enter
    pub const ENTER: &str = "\u{e007}";
    /// Escape
    pub const ESCAPE: &str = "\u{e00c}";
    /// Tab
    pub const TAB: &str = "\u{e004}";
    /// The arrow key to the left
    pub const LEFT: &str = "\u{e012}";
    /// The arrow key upwards
    pub const UP: &str = "\u{e013}";
    /// The arrow key to the right
    pub const RIGHT: &str = "\u{e014}";
    /// The arrow key downwards
    pub const DOWN: &str = "\u{e015}";
}

impl Browser {
    /// Starts a browser with a window of this size in pixels, and installs it when it is missing.
    ///
    /// # Errors
    /// When Chromium cannot be installed, or does not start.
    pub fn start(purpose: &str, (width, height): (u32, u32)) -> Result<Self> {
        packages::ensure(purpose, PACKAGES)?;
        let driver = Driver::start()?;
        let profile = tempfile::tempdir().context("no directory for the browser's profile")?;
        let http = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).http_status_as_error(false).build(),
        );
        let arguments = [
            "--headless=new".to_owned(),
            // As root there is no sandbox, and the pages are our own.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            // Containers have a small /dev/shm.
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--force-device-scale-factor=1".to_owned(),
            // What the browser asks the network for of its own accord.
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--no-first-run".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let answer = send(&http, &format!("{}/session", driver.address), &wanted).context("the browser does not start")?;
        let Some(id) = answer["sessionId"].as_str() else { bail!("the driver has started no session: {answer}") };
        let session = format!("{}/session/{id}", driver.address);
        let browser = Browser { driver, http, session, _profile: profile };
        // The window's size counts its frame; pages are to have exactly this much.
        browser.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        )?;
        // What the browser's own first page asked for and said is nobody's.
        browser.command("url", &json!({"url": "about:blank"}))?;
        browser.requests()?;
        browser.console()?;
        Ok(browser)
    }

    /// Opens a file as a page, and waits until it is loaded.
    ///
    /// # Errors
    /// When the browser cannot.
    pub fn open(&self, file: &Path) -> Result<()> {
        let file = file.canonicalize().with_context(|| format!("no page {}", file.display()))?;
        self.command("url", &json!({"url": format!("file://{}", file.display())}))?;
        Ok(())
    }

    /// Runs a script in the page as the body of a function and gives what it returns; a promise is waited for.
    ///
    /// # Errors
    /// When the script throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({"script": script, "args": []})).with_context(|| format!("the script {script}"))
    }

    /// Presses keys one after the other, as a person would: characters, and [`keys`].
    ///
    /// # Errors
    /// When the browser cannot.
    pub fn press(&self, text: &str) -> Result<()> {
        let strokes: Vec<Value> = text
            .chars()
            .flat_map(|key| [json!({"type": "keyDown", "value": key.to_string()}), json!({"type": "keyUp", "value": key.to_string()})])
            .collect();
        self.command("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}))?;
        Ok(())
    }

    /// Clicks the middle of the first element of a CSS selector, by the mouse: whatever lies on top there takes the click.
    ///
    /// # Errors
    /// When there is no such element, or it cannot be seen.
    pub fn click(&self, selector: &str) -> Result<()> {
        let found = self.command("element", &json!({"using": "css selector", "value": selector}))?;
        let Some(id) = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str) else {
            bail!("no element {selector}: {found}")
        };
        self.command(&format!("element/{id}/click"), &json!({})).with_context(|| format!("a click on {selector}"))?;
        Ok(())
    }

    /// Clicks a point of the window, in pixels from its upper left corner.
    ///
    /// # Errors
    /// When it is not in the window.
    pub fn click_at(&self, x: i64, y: i64) -> Result<()> {
        let pointer = json!([
            {"type": "pointerMove", "duration": 0, "x": x, "y": y, "origin": "viewport"},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]);
        let mouse = json!({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": pointer});
        self.command("actions", &json!({"actions": [mouse]}))?;
        Ok(())
    }

    /// Pages see that people prefer dark colours, or light ones.
    ///
    /// # Errors
    /// When the browser cannot.
    pub fn prefer_dark(&self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": [{"name": "prefers-color-scheme", "value": value}]}))?;
        Ok(())
    }

    /// Writes what the window shows as a PNG file.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        use base64::Engine as _;
        let answer = receive(self.http.get(format!("{}/screenshot", self.session)).call())?;
        let png = base64::engine::general_purpose::STANDARD.decode(answer.as_str().unwrap_or_default()).context("the screenshot")?;
        std::fs::write(file, png).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What pages wrote to the console since this was asked last, errors of the browser among it: `SEVERE: text`.
    ///
    /// # Errors
    /// When the browser cannot.
    pub fn console(&self) -> Result<Vec<String>> {
        let entries = self.command("se/log", &json!({"type": "browser"}))?;
        let shown =
            |entry: &Value| format!("{}: {}", entry["level"].as_str().unwrap_or_default(), entry["message"].as_str().unwrap_or_default());
        Ok(entries.as_array().into_iter().flatten().map(shown).collect())
    }

    /// The addresses that pages asked for since this was asked last, the pages' own among them.
    ///
    /// # Errors
    /// When the browser cannot.
    pub fn requests(&self) -> Result<Vec<String>> {
        let entries = self.command("se/log", &json!({"type": "performance"}))?;
        let mut requests = Vec::new();
        for entry in entries.as_array().into_iter().flatten() {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default()).context("a record of the driver")?;
            let message = &message["message"];
            if message["method"] == "Network.requestWillBeSent" {
                requests.push(message["params"]["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(requests)
    }

    /// A command of the DevTools protocol.
    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn command(&self, command: &str, parameters: &Value) -> Result<Value> {
        send(&self.http, &format!("{}/{command}", self.session), parameters)
            .with_context(|| format!("the browser behind {}", self.driver.address))
    }
}

impl Driver {
    /// Starts the driver on a port that the system chooses, and reads which.
    fn start() -> Result<Self> {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start chromedriver")?;
        let said = process.stdout.take();
        let mut driver = Driver { process, address: String::new() };
        let mut said = BufReader::new(said.context("chromedriver has no output")?);
        let mut line = String::new();
        while said.read_line(&mut line)? > 0 {
            if let Some(port) = line.trim_end().strip_prefix("ChromeDriver was started successfully on port ") {
                driver.address = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
                // It must not stop because nobody reads what it says.
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                return Ok(driver);
            }
            line.clear();
        }
        bail!("chromedriver ended before it listened")
    }
}

fn send(http: &ureq::Agent, address: &str, body: &Value) -> Result<Value> {
    receive(http.post(address).header("Content-Type", "application/json").send(body.to_string()))
}

/// The value of an answer; errors of WebDriver are errors.
fn receive(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    // Screenshots and logs are larger than what is read by default.
    let text = answer?.body_mut().with_config().limit(256 << 20).read_to_string()?;
    let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("the driver's answer {text:.200}"))?;
    let value = answer["value"].take();
    match value["error"].as_str() {
        Some(error) => bail!("{error}: {}", value["message"].as_str().unwrap_or_default().lines().next().unwrap_or_default()),
        None => Ok(value),
    }
}
