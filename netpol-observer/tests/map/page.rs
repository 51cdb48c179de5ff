//! The page, in a real browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use xtask::browser::{Browser, keys};
use xtask::testing::{report, skipped};

use crate::scene::{DROPS, HOSTILE, SHOP, Scene, large};

/// Crate that carries Mermaid as one file.
const MERMAID: (&str, &str, &str) = ("mdbook-mermaid", "0.17.1", "src/bin/assets/mermaid.min.js");

/// One browser for all of it: starting one takes longer than any of these.
#[test]
fn in_a_browser() {
    let browser = match Browser::start("the test of the page", (1440, 900)) {
        Ok(browser) => browser,
        Err(error) => {
            skipped("in_a_browser", &format!("{error:#}"));
            return;
        }
    };
    let scene = Scene::new(&[("shop.yaml", SHOP), ("hostile.yaml", HOSTILE), ("large.yaml", &large(20)), ("drops.json", DROPS)]);
    let page = Page { browser, shots: std::env::var_os("MAP_SCREENSHOTS").map(PathBuf::from) };
    page.open(&scene.page("shop.yaml", &["--drops", "drops.json", "--title", "The shop"]));
    page.explains();
    page.filters();
    page.is_used_by_keyboard();
    page.lists_and_matrix();
    page.is_light_and_dark();
    page.lays_drops_over();
    page.keeps_to_itself();
    page.open(&scene.page("hostile.yaml", &["--title", "</title><script>window.pwned=5</script>"]));
    page.shows_hostile_names();
    page.draws_mermaid(&scene);
    let large = scene.page("large.yaml", &[]);
    page.is_fast(&large);
}

struct Page {
    browser: Browser,
    /// Where screenshots are to go, if somebody wants to look at them.
    shots: Option<PathBuf>,
}

impl Page {
    fn open(&self, file: &Path) {
        self.browser.open(file).unwrap();
    }

    fn js(&self, script: &str) -> Value {
        self.browser.run(&format!("return (() => {{ {script} }})()")).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The text of an element.
    fn text(&self, selector: &str) -> String {
        self.js(&format!("return document.querySelector({selector:?}).innerText")).as_str().unwrap().to_owned()
    }

    /// Names of the workloads that can be seen on the map.
    fn chips(&self) -> Vec<String> {
        let names = self.js(
            "return [...document.querySelectorAll('.chip')].filter(chip => chip.offsetParent).map(chip => parties[chip.dataset.party].id).sort()",
        );
        names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// `web → api: some ports`, for each row of the list.
    fn rows(&self) -> Vec<String> {
        let rows = self.js("return [...document.querySelectorAll('#rows tr')].map(row => [...row.children].map(cell => cell.innerText.trim()).join(' | '))");
        rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned()).collect()
    }

    fn press(&self, text: &str) {
        self.browser.press(text).unwrap();
        self.settle();
    }

    fn click(&self, selector: &str) {
        self.browser.click(selector).unwrap_or_else(|error| panic!("{error:#}"));
        self.settle();
    }

    /// Until what was typed is taken up and drawn.
    fn settle(&self) {
        self.browser
            .run("return new Promise(done => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 10))")
            .unwrap();
    }

    fn shoot(&self, name: &str) {
        if let Some(directory) = &self.shots {
            fs::create_dir_all(directory).unwrap();
            self.browser.screenshot(&directory.join(format!("{name}.png"))).unwrap();
        }
    }

    /// A click on a workload shows whom it may call; one on a pair the rules that say so.
    fn explains(&self) {
        assert_eq!(self.js("return document.title"), "The shop");
        assert_eq!(self.chips(), ["0.0.0.0/0", "203.0.113.0/24", "data/sts/db", "shop/deploy/api", "shop/deploy/web"]);
        self.shoot("board");
        self.click("[data-party='1']");
        let panel = self.text("#panel");
        assert!(panel.contains("shop/deploy/api") && panel.contains("shop.yaml"), "{panel}");
        self.shoot("workload");
        self.click("#panel .links button");
        self.js("explainPair(parties.findIndex(party => party.id === 'shop/deploy/web'), parties.findIndex(party => party.id === 'shop/deploy/api'))");
        let panel = self.text("#panel");
        for words in [
            "allowed on some ports",
            "Allowed on 8080/TCP",
            "no policy restricts the caller",
            "NetworkPolicy shop/api ingress[0] (shop.yaml:",
            "Denied on others, such as 9090/TCP",
            "observer explain -f MANIFESTS --from shop/deploy/web --to shop/deploy/api --port 9090/TCP",
        ] {
            assert!(panel.contains(words), "{words} in {panel}");
        }
        self.shoot("pair");
        // The address holds it, and a link shows the same.
        let hash = self.js("return location.hash").as_str().unwrap().to_owned();
        assert!(hash.contains("from=shop%2Fdeploy%2Fweb") && hash.contains("to=shop%2Fdeploy%2Fapi"), "{hash}");
        self.press(keys::ESCAPE);
        self.press(keys::ESCAPE);
        assert!(self.text("#panel").starts_with("Who can talk to whom"));
    }

    fn filters(&self) {
        // Search, by name and by label.
        self.press("/");
        self.press("app=db");
        assert_eq!(self.chips(), ["data/sts/db"]);
        self.press(keys::ESCAPE);
        assert_eq!(self.chips().len(), 5);
        // Namespaces.
        self.click("#namespaces-button");
        self.click("#namespaces input[value='data']");
        assert_eq!(self.chips(), ["data/sts/db"]);
        self.click("#namespaces input[value='shop']");
        assert_eq!(self.chips(), ["data/sts/db", "shop/deploy/api", "shop/deploy/web"]);
        self.click("h1");
        assert_eq!(self.js("return document.getElementById('namespaces').hidden"), true);
        // Verdicts, in the list.
        self.press("3");
        let all = self.rows().len();
        let mut count = 0;
        for (verdict, word) in [("every", "every port"), ("some", "some ports"), ("denied", "denied")] {
            self.click(&format!("[data-verdict='{verdict}']"));
            let rows = self.rows();
            assert!(!rows.is_empty() && rows.iter().all(|row| row.contains(word)), "{rows:?}");
            count += rows.len();
        }
        assert_eq!(count, all);
        self.click("#clear");
        assert!(self.rows().len() > all);
        // A port: what is allowed on it.
        self.click("#port");
        self.press("5432");
        self.click("[data-verdict='every']");
        let rows = self.rows();
        assert!(rows.iter().any(|row| row.starts_with("shop/deploy/api | data/sts/db | allowed on 5432/TCP | 5432/TCP")), "{rows:?}");
        assert!(!rows.iter().any(|row| row.starts_with("shop/deploy/web | data/sts/db")), "{rows:?}");
        self.click("#port");
        self.press("x");
        assert!(self.text("#port-problem").contains("is no port"), "{}", self.text("#port-problem"));
        self.click("#clear");
        // A workload.
        self.click("#workload");
        self.press("data/sts/db");
        let rows = self.rows();
        assert!(rows.len() > 3 && rows.iter().all(|row| row.contains("data/sts/db")), "{rows:?}");
        self.click("#clear");
        // Nothing fits.
        self.press("/");
        self.press("nowhere");
        assert!(self.text("#results").contains("Nothing fits the filters"));
        self.click("#clear-too");
        self.press("1");
    }

    fn is_used_by_keyboard(&self) {
        self.press("/");
        self.press("shop");
        self.press(keys::ENTER);
        let focused = || self.js("return document.activeElement.dataset.party && parties[document.activeElement.dataset.party].id");
        assert_eq!(focused(), "shop/deploy/api");
        self.press(keys::DOWN);
        assert_eq!(focused(), "shop/deploy/web");
        self.press(keys::UP);
        self.press(keys::ENTER);
        assert!(self.text("#panel").starts_with("shop/deploy/api"));
        assert_eq!(focused(), "shop/deploy/api");
        // The list: rows by arrows, the explanation by Enter.
        self.press(keys::ESCAPE);
        self.press("3");
        self.js("document.querySelector('#rows tr').focus()");
        self.press(keys::DOWN);
        self.press(keys::ENTER);
        assert_eq!(self.js("return document.activeElement.rowIndex"), 2);
        assert!(self.text("#panel").contains("opens connections to"));
        self.press(keys::ESCAPE);
        self.press(keys::ESCAPE);
        assert_eq!(self.js("return state.search"), "");
        // Help.
        self.press("?");
        assert_eq!(self.js("return document.getElementById('help').open"), true);
        self.press(keys::ESCAPE);
        assert_eq!(self.js("return document.getElementById('help').open"), false);
        // Everything that can be chosen is reached by Tab and has a name.
        let nameless = self.js("return [...document.querySelectorAll('button, input, [role=tab], [role=radio]')].filter(element => !(element.innerText || element.getAttribute('aria-label') || element.closest('label') || element.title)).length");
        assert_eq!(nameless, 0);
        self.press("1");
    }

    fn lists_and_matrix(&self) {
        self.press("2");
        self.shoot("matrix");
        self.js("document.getElementById('matrix-scroll').focus()");
        self.settle();
        self.press(keys::RIGHT);
        self.press(keys::DOWN);
        self.press(keys::ENTER);
        let said = self.text("#matrix-says");
        let [from, to] =
            ["return longName(parties[state.pair[0]])", "return longName(parties[state.pair[1]])"].map(|script| self.js(script));
        assert!(said.starts_with(&format!("{} → {}", from.as_str().unwrap(), to.as_str().unwrap())), "{said}");
        // A click on the cell of a pair, where it is painted.
        let at = self.js(
            "const box = document.getElementById('matrix-scroll').getBoundingClientRect(), find = id => parties.findIndex(party => party.id === id);
             const [row, column] = [matrix.rows.indexOf(find('shop/deploy/web')), matrix.columns.indexOf(find('data/sts/db'))];
             return [box.left + matrix.head + (column + .5) * matrix.size, box.top + matrix.top + (row + .5) * matrix.size].map(Math.round)",
        );
        self.browser.click_at(at[0].as_i64().unwrap(), at[1].as_i64().unwrap()).unwrap();
        self.settle();
        let panel = self.text("#panel");
        assert!(panel.contains("shop/deploy/web") && panel.contains("data/sts/db") && panel.contains("denied on every port"), "{panel}");
        self.press(keys::ESCAPE);
        self.press("3");
        self.shoot("list");
        self.press("1");
    }

    fn is_light_and_dark(&self) {
        let back = || self.js("return getComputedStyle(document.body).backgroundColor");
        self.browser.prefer_dark(false).unwrap();
        let light = back();
        self.browser.prefer_dark(true).unwrap();
        let dark = back();
        assert_ne!(light, dark);
        self.shoot("dark");
        // The switch goes before what the system prefers.
        self.click("#theme");
        assert_eq!(back(), light);
        self.press("d");
        assert_eq!(back(), dark);
        self.browser.prefer_dark(false).unwrap();
        assert_eq!(back(), dark);
        // Text can be read in both: the contrast of WCAG, 4.5 to 1 at the least.
        for theme in ["light", "dark"] {
            self.js(&format!("document.documentElement.dataset.theme = {theme:?}"));
            let worst = self.js(
                "const part = value => (value /= 255) <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
                 const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number); return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
                 const probe = document.body.appendChild(document.createElement('i'));
                 const colour = name => { probe.style.color = `var(${name})`; return light(getComputedStyle(probe).color); };
                 const pairs = [['--text', '--back'], ['--text', '--sheet'], ['--text', '--sunk'], ['--quiet', '--sheet'], ['--quiet', '--sunk'], ['--accent', '--sheet'], ['--accent', '--accent-back'], ['--drop', '--sheet'],
                   ['--drop', '--drop-back'], ['--ok-text', '--ok-back'], ['--some-text', '--some-back'], ['--deny-text', '--deny-back'], ['--sheet', '--accent'], ['--sheet', '--drop'], ['--text', '--in-back'], ['--text', '--out-back']];
                 const ratios = pairs.map(([one, other]) => { const [a, b] = [colour(one), colour(other)]; return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), one + ' on ' + other]; });
                 probe.remove();
                 return ratios.sort((a, b) => a[0] - b[0])[0]",
            );
            assert!(worst[0].as_f64().unwrap() >= 4.5, "{theme}: {worst}");
        }
        self.js("delete document.documentElement.dataset.theme; localStorage.clear()");
    }

    fn lays_drops_over(&self) {
        let panel = self.text("#panel");
        assert!(panel.contains("1 more drop has an end that is not on this map"), "{panel}");
        self.click("[data-verdict='recorded']");
        self.press("3");
        assert_eq!(self.rows(), ["shop/deploy/web | data/sts/db | denied |  | 42 drops"]);
        self.click("#rows tr");
        let panel = self.text("#panel");
        for words in [
            "42 packets, last 2026-11-30T10:02:00Z",
            "Denied by ingress policies on data/db-0.",
            "Denied by NetworkPolicy data/db",
            "To admit it: let app=web in",
        ] {
            assert!(panel.contains(words), "{words} in {panel}");
        }
        self.shoot("drops");
        self.press(keys::ESCAPE);
        self.press(keys::ESCAPE);
        self.press("1");
    }

    /// No request but for the page itself, and nothing to complain about.
    fn keeps_to_itself(&self) {
        let requests = self.browser.requests().unwrap();
        assert!(requests.iter().any(|address| address.ends_with("/shop.yaml.html")), "{requests:?}");
        assert_eq!(requests.iter().filter(|address| !address.ends_with("/shop.yaml.html")).count(), 0, "{requests:?}");
        assert_eq!(self.browser.console().unwrap(), Vec::<String>::new());
        // Nor may it, whatever comes into it.
        self.js("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x'}))");
        self.settle();
        let console = self.browser.console().unwrap();
        assert!(console.iter().any(|line| line.contains("Content Security Policy")), "{console:?}");
    }

    fn shows_hostile_names(&self) {
        assert_eq!(self.js("return document.title"), "</title><script>window.pwned=5</script>");
        for view in ["3", "2", "1"] {
            self.press(view);
            self.shoot(&format!("hostile-{view}"));
        }
        let chips = self.chips();
        assert!(chips.iter().any(|name| name.contains("<img src=x onerror=window.pwned=1>")), "{chips:?}");
        self.js("explainPair(0, 1)");
        let panel = self.text("#panel");
        assert!(panel.contains("</script><script>window.pwned=2</script>") && panel.contains("{{data}}' & subgraph #quot;"), "{panel}");
        assert!(panel.contains("<svg onload=window.pwned=4>"), "{panel}");
        self.js("focusOn(0)");
        assert_eq!(
            self.js("return [typeof window.pwned, document.querySelectorAll('img').length, document.scripts.length]"),
            serde_json::json!(["undefined", 0, 2])
        );
        assert_eq!(self.browser.console().unwrap(), Vec::<String>::new());
    }

    /// Mermaid's own parser takes the charts, and draws as many boxes and arrows as there are.
    fn draws_mermaid(&self, scene: &Scene) {
        let (name, version, file) = MERMAID;
        let script = match xtask::crates::source(name, version) {
            Ok(directory) => fs::read_to_string(directory.join(file)).unwrap(),
            Err(error) => {
                skipped("draws_mermaid", &format!("{error:#}"));
                return;
            }
        };
        let page = scene.path("mermaid.html");
        fs::write(
            &page,
            format!("<!doctype html><meta charset=utf-8><title>m</title><script>{}</script>", script.replace("</script", "<\\/script")),
        )
        .unwrap();
        self.open(&page);
        for (arguments, nodes, edges) in [
            (&["shop.yaml"][..], 5, 11),
            (&["shop.yaml", "--drops", "drops.json"], 5, 12),
            (&["shop.yaml", "--by", "namespace"], 4, 7),
            (&["hostile.yaml"], 3, 5),
        ] {
            let (code, chart, err) = scene.map(&[arguments, &["-o", "mermaid"]].concat());
            assert_eq!(code, 0, "{err}");
            let chart = serde_json::to_string(&chart).unwrap();
            let found = self
                .browser
                .run(&format!(
                    "mermaid.initialize({{startOnLoad: false, securityLevel: 'loose'}});
                     return (async () => {{
                       const parsed = await mermaid.mermaidAPI.getDiagramFromText({chart});
                       const {{svg}} = await mermaid.render('chart', {chart});
                       document.body.innerHTML = svg;
                       return [document.querySelectorAll('g.node').length, parsed.db.getEdges().length, document.body.textContent, typeof window.pwned, document.querySelectorAll('img, a').length];
                     }})()"
                ))
                .unwrap_or_else(|error| panic!("{error:#}\n{chart}"));
            assert_eq!(
                (&found[0], &found[1], &found[3], &found[4]),
                (&Value::from(nodes), &Value::from(edges), &Value::from("undefined"), &Value::from(0)),
                "{chart}"
            );
            if arguments.contains(&"hostile.yaml") {
                let text = found[2].as_str().unwrap();
                assert!(text.contains("<img src=x onerror=window.pwned=1>"), "{text}");
            }
            self.shoot(&format!("mermaid-{edges}-{nodes}"));
        }
    }

    /// 500 workloads: how long it takes to open, and to filter.
    fn is_fast(&self, page: &Path) {
        let start = Instant::now();
        self.open(page);
        self.settle();
        let opened = start.elapsed();
        let mut slowest = ("", 0.0);
        for (what, script) in [
            ("search", "change({search: 'api'})"),
            ("verdict", "change({search: '', verdict: 'some'})"),
            ("port", "change({verdict: 'any', port: '8080'})"),
            ("namespace", "change({port: '', namespaces: new Set(['team-03'])})"),
            ("workload", "change({namespaces: null}); focusOn(3)"),
            ("matrix", "change({view: 'matrix'})"),
            ("list", "focusOn(-1); change({view: 'list'})"),
            ("map", "change({view: 'board'})"),
        ] {
            // Until it is painted.
            let took = self
                .browser
                .run(&format!("return new Promise(done => {{ const start = performance.now(); {script}; requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))) }})"))
                .unwrap()
                .as_f64()
                .unwrap();
            if took > slowest.1 {
                slowest = (what, took);
            }
            self.shoot(&format!("large-{what}"));
        }
        assert_eq!(self.js("return parties.filter(party => party.kind === 'workload').length"), 500);
        let bytes = fs::metadata(page).unwrap().len();
        report(&format!(
            "a page of 500 workloads ({:.1} MB): opened in {:.0} ms, the slowest change ({}) drawn in {:.0} ms",
            bytes as f64 / 1e6,
            opened.as_secs_f64() * 1e3,
            slowest.0,
            slowest.1
        ));
        // A minute would be a mistake; what a loaded machine takes is not.
        assert!(opened.as_secs() < 20 && slowest.1 < 10_000.0);
    }
}
