//! A map as one page that needs nothing else: no server, no network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::json::SaidObject;
use super::{Cell, Denial, Map, Party, Ruling};
use crate::connectivity::port_words;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");

/// In the order in which they build on each other.
const SCRIPTS: [&str; 6] = [
    include_str!("page/data.js"),
    include_str!("page/state.js"),
    include_str!("page/board.js"),
    include_str!("page/matrix.js"),
    include_str!("page/panel.js"),
    include_str!("page/main.js"),
];

/// What the page is made of. Pairs are numbers of four bytes, so that a large cluster's quarter of a million is read at once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    title: &'a str,
    parties: &'a [Party],
    rulings: &'a [Ruling],
    cells: Vec<CellObject>,
    /// Base64 of positions in `cells`, little-endian, by callers.
    pairs: String,
    denials: &'a [Denial],
    elsewhere: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CellObject {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    /// Protocol, first and last port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<(String, u16, u16)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    granted: Vec<SaidObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<SaidObject>,
}

impl CellObject {
    fn of(cell: &Cell) -> Self {
        let ports = cell.ports();
        CellObject {
            ranges: ports.iter().map(|range| (range.protocol.to_string(), range.from, range.to)).collect(),
            ports: port_words(&ports),
            granted: cell.granted.iter().map(SaidObject::of).collect(),
            denied: cell.denied.as_ref().map(SaidObject::of),
        }
    }
}

/// The page. Names of objects come from anybody: they are data within it, never part of it.
///
/// # Errors
/// When the map cannot be written as JSON, which does not happen.
pub fn html(map: &Map) -> Result<String, serde_json::Error> {
    let pairs: Vec<u8> = map.pairs.iter().flat_map(|cell| cell.to_le_bytes()).collect();
    let data = Data {
        title: &map.title,
        parties: &map.parties,
        rulings: &map.rulings,
        cells: map.cells.iter().map(CellObject::of).collect(),
        pairs: STANDARD.encode(pairs),
        denials: &map.denials,
        elsewhere: map.elsewhere,
    };
    let data = within_script(&serde_json::to_string(&data)?);
    let scripts = SCRIPTS.concat();
    // One pass over the template: what was put in is not looked at again.
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + scripts.len() + data.len());
    for (at, part) in PAGE.split("{{").enumerate() {
        let rest = match (at, part.split_once("}}")) {
            (0, _) | (_, None) => part,
            (_, Some((name, rest))) => {
                match name {
                    "title" => page.push_str(&escaped(&map.title)),
                    "policy" => page.push_str(&policy(&scripts)),
                    "style" => page.push_str(STYLE),
                    "data" => page.push_str(&data),
                    "scripts" => page.push_str(&scripts),
                    "version" => page.push_str(env!("CARGO_PKG_VERSION")),
                    _ => {}
                }
                rest
            }
        };
        page.push_str(rest);
    }
    Ok(page)
}

/// What the page may do: run these scripts and no others, and ask nobody for anything.
fn policy(scripts: &str) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    let (scripts, style) = (hash(scripts), hash(STYLE));
    format!("default-src 'none'; script-src {scripts}; style-src {style}; img-src data:; base-uri 'none'; form-action 'none'")
}

/// JSON that may stand in a `<script>`: nothing in it ends the element or begins a comment, and JSON says the same.
fn within_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Text that may stand in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::map::Party;

    const HOSTILE: &str = "</script><!--<script>{{data}}\u{2028}&\"'\\";

    /// What is data stays data: the script ends where the page ends it, and reads what was put in.
    #[test]
    fn names_end_no_element() {
        let party = Party { kind: "workload", id: HOSTILE.to_owned(), ..Party::default() };
        let map = Map { title: HOSTILE.to_owned(), parties: vec![party], cells: vec![Cell::default()], pairs: vec![0], ..Map::default() };
        let page = html(&map).expect("a page");
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(!page.contains("<!--"));
        let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("the data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&data["title"], &data["parties"][0]["id"]), (&Value::from(HOSTILE), &Value::from(HOSTILE)));
        assert!(page.contains("<title>&lt;/script&gt;&lt;!--&lt;script&gt;{{data}}\u{2028}&amp;&quot;&#39;\\</title>"));
    }

    /// A script that held this would end the page's own element, and its hash would not fit.
    #[test]
    fn the_pages_own_parts_end_no_element() {
        assert!(SCRIPTS.iter().chain([&STYLE]).all(|part| !part.contains("</") && !part.contains("<!--")));
        assert_eq!(PAGE.matches("{{").count(), PAGE.matches("}}").count());
    }
}
