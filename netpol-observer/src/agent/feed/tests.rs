use serde_json::Value;

use super::*;
use crate::agent::testing::{NoWords, denial, notice, repeat};
use crate::serve::testing::at;

fn feed_of(query: &str) -> Feed {
    let query = DropsQuery::parse(query, &NoWords).unwrap();
    Feed::new(query, "node-2".into(), at(0), false, false)
}

fn frames(feed: &mut Feed) -> Vec<Value> {
    let bytes = feed.frames();
    std::str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Kind and order of each, with the type or the first word of items.
fn kinds(frames: &[Value]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| {
            let kind = frame["frame"].as_str().unwrap();
            let item = frame["line"]["type"].as_str().or(frame["text"].as_str().map(|text| text.split(' ').nth(1).unwrap()));
            match item {
                Some(item) => format!("{kind} {item}"),
                None => kind.to_owned(),
            }
        })
        .collect()
}

fn order(frame: &Value) -> Timestamp {
    frame["order"].as_str().unwrap().parse().unwrap()
}

#[test]
fn frames_are_as_the_api_says() {
    let mut feed = feed_of("follow=true");
    feed.hello("0.1.0", "6.18.0", at(0), at(-60));
    feed.take(denial(1, 1), at(1));
    feed.take(denial(1, 2), at(2));
    feed.take(repeat(1, 3, 3), at(3));
    feed.take(notice("the disk is full", 4), at(4));
    feed.watermark(at(4));
    feed.tick(at(6));
    feed.lost(7, at(6));
    feed.end(at(8), Some("shutting down"));
    let frames = frames(&mut feed);
    assert_eq!(kinds(&frames), ["hello", "item denial", "item notice", "watermark", "item repeat", "lost", "ledger ledger", "end"]);
    let hello = &frames[0];
    assert_eq!((&hello["version"], &hello["node"], &hello["kernel"]), (&"0.1.0".into(), &"node-2".into(), &"6.18.0".into()));
    assert_eq!(hello["retainedSince"], at(-60).to_string());
    assert_eq!(frames[1]["line"]["kernel"]["node"], "node-2");
    assert_eq!(order(&frames[1]), at(1));
    // The summary says when its last drop was, and belongs where it is said.
    assert_eq!((frames[4]["line"]["count"].clone(), frames[4]["line"]["last"].clone()), (4.into(), at(3).to_string().into()));
    assert_eq!(order(&frames[4]), at(6));
    assert_eq!((&frames[5]["count"], &frames[5]["since"]), (&7.into(), &at(6).to_string().into()));
    assert_eq!(frames[6]["line"]["balanced"], true);
    assert_eq!(frames[7]["reason"], "shutting down");
}

#[test]
fn nothing_comes_before_a_watermark() {
    let mut feed = feed_of("follow=true");
    feed.watermark(at(10));
    feed.take(denial(1, 3), at(11));
    feed.take(notice("n", 2), at(11));
    // A watermark never goes back either.
    feed.watermark(at(5));
    let frames = frames(&mut feed);
    assert!(frames.iter().all(|frame| order(frame) >= at(10)), "{frames:?}");
    assert_eq!(frames[1]["line"]["time"], at(3).to_string(), "the drop keeps its own time");
}

#[test]
fn the_last_ones_of_the_history_and_then_everything() {
    let mut feed = feed_of("follow=true&last=2");
    for id in 1..=4 {
        feed.take(denial(id, id as i64), at(id as i64));
    }
    feed.take(repeat(3, 6, 5), at(5));
    assert_eq!(feed.len(), 0, "the history is not shown before it is known what is last");
    feed.tick(at(20));
    feed.history_ends();
    let shown = frames(&mut feed);
    assert_eq!(kinds(&shown), ["item denial", "item denial", "item repeat"]);
    assert_eq!(shown[2]["line"]["count"], 6);
    feed.take(denial(9, 21), at(21));
    feed.end(at(22), None);
    let rest = frames(&mut feed);
    assert_eq!(kinds(&rest), ["item denial", "ledger ledger"]);
    let ledger = &rest[1]["line"];
    assert_eq!((&ledger["shown"], &ledger["earlier"], &ledger["repeats"]), (&3.into(), &2.into(), &6.into()));
}

#[test]
fn since_and_filters_leave_out_and_count() {
    let since = at(3);
    let mut feed = feed_of(&format!("since={since}&arg=-n&arg=elsewhere"));
    feed.take(denial(1, 1), at(1));
    feed.take(denial(2, 4), at(4));
    feed.end(at(9), None);
    let shown = frames(&mut feed);
    assert_eq!(kinds(&shown), ["ledger ledger"]);
    assert_eq!(shown[0]["line"]["filteredOut"], 2);
    let mut feed = feed_of(&format!("since={since}"));
    feed.take(denial(1, 1), at(1));
    feed.take(denial(2, 4), at(4));
    // One that goes on is shown.
    feed.take(repeat(1, 5, 6), at(6));
    feed.end(at(9), None);
    assert_eq!(kinds(&frames(&mut feed)), ["item denial", "item denial", "item repeat", "ledger ledger"]);
}

#[test]
fn text_is_what_a_tail_prints() {
    let mut feed = feed_of("form=text&oneline=true&utcOffset=3600");
    feed.take(denial(1, 0), at(0));
    feed.take(notice("line one\nline\u{1b}[31m two", 1), at(1));
    let shown = frames(&mut feed);
    let text = shown[0]["text"].as_str().unwrap();
    assert!(text.starts_with("15:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP"), "{text}");
    assert!(text.ends_with('\n') && text.lines().count() == 1);
    assert_eq!(shown[1]["text"], "warning: line one\nline\\u{1b}[31m two\n");
    let mut coloured = feed_of("form=text&colour=true");
    coloured.take(denial(1, 0), at(0));
    assert!(frames(&mut coloured)[0]["text"].as_str().unwrap().contains("\u{1b}[1m"));
}

#[test]
fn tenants_do_not_see_the_counters_of_the_node() {
    let query = DropsQuery::parse("", &NoWords).unwrap();
    let mut feed = Feed::new(query, "node-2".into(), at(0), false, true);
    feed.kernel(KernelLedger::default());
    feed.take(Observation::Ledger(KernelLedger::default()), at(1));
    feed.end(at(1), None);
    assert!(frames(&mut feed)[0]["line"].get("kernel").is_none());
}
