//! `--queries`

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::scene::{Run, Scene, run};

fn lines(run: &Run) -> Vec<Value> {
    run.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn queries(text: &str, options: &[&str]) -> Run {
    Scene::new().explain_with(&[&["-f", "cluster.yaml", "--queries", "-"], options].concat(), text)
}

#[test]
fn the_same_lines_with_their_answers() {
    let text = r#"{"id": 1.50, "from": "shop/web-7d9f-a", "to": "shop/api-1", "port": 8080, "protocol": "TCP", "verdict": "deny"}

 {"to": "10.0.1.12", "port": "8080/TCP", "from": "shop/web-7d9f-a", "x": {"b": [1, 2], "a": "ü\u0007"}}
{"from": "shop/deploy/web", "to": "http://api.shop"}
{"from": "api-1", "to": "node/n1", "protocol": "ICMP", "port": null}"#;
    let run = queries(text, &["--no-explanation", "-n", "shop"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let expected = r#"{"id":1.50,"from":"shop/web-7d9f-a","to":"shop/api-1","port":8080,"protocol":"TCP","verdict":"allow"}
{"to":"10.0.1.12","port":"8080/TCP","from":"shop/web-7d9f-a","x":{"b": [1, 2], "a": "ü\u0007"},"verdict":"deny"}
{"from":"shop/deploy/web","to":"http://api.shop","verdict":"undecided"}
{"from":"api-1","to":"node/n1","protocol":"ICMP","port":null,"verdict":"allow"}
"#;
    assert_eq!(run.out, expected);

    let explained = queries(text, &["-n", "shop"]);
    let (short, long) = (lines(&run), lines(&explained));
    assert_eq!(short.len(), long.len());
    for (short, long) in short.iter().zip(&long) {
        assert_eq!(short["verdict"], long["verdict"], "{long}");
        assert!(long["explanation"]["egress"].is_object(), "{long}");
    }
    assert_eq!(long[1]["explanation"]["ingress"]["isolating"][0]["policy"]["name"], "locked");
    assert!(long[1].get("chain").is_none(), "{}", long[1]);
    assert_eq!(long[2]["chain"][0]["link"], "dns");
}

#[test]
fn a_bad_line_says_so_and_the_next_are_answered() {
    let long = format!("{{\"from\": \"{}\"}}", "x".repeat(1 << 20));
    let text = [
        "nonsense",
        r#"{"from": "shop/wbe", "to": "shop/api-1", "port": 1, "id": 7}"#,
        "[]",
        r#"{"from": "shop/api-1"}"#,
        r#"{"from": 5, "to": "shop/api-1"}"#,
        r#"{"from": "shop/api-1", "to": "shop/api-1", "port": 70000}"#,
        r#"{"from": "shop/api-1", "to": "shop/api-1", "port": 1.5}"#,
        r#"{"from": "shop/api-1", "to": "shop/api-1", "port": 1, "protocol": "X"}"#,
        &long,
        "{\"from\": \"shop/api-1\", \"to\": \"\u{7f}\u{202e}\"}",
        r#"{"from": "shop/api-1", "to": "shop/api-1", "port": 1}"#,
    ];
    let run = queries(&text.join("\n"), &["--no-explanation"]);
    assert_eq!(run.code, 2, "{}", run.err);
    assert!(!run.out.chars().any(|c| c == '\u{7f}' || c == '\u{202e}'));
    let answers = lines(&run);
    let errors: Vec<_> = answers.iter().map(|answer| answer["error"].as_str().unwrap_or("-")).collect();
    let starts = [
        "line 1: no question: expected ident (column 2)",
        "line 2: no pod shop/wbe; ",
        "line 3: no question: invalid type: sequence, expected a JSON object with from, to, port and protocol",
        "line 4: to is missing",
        "line 5: from: expected a text, not 5",
        "line 6: port: expected a port from 1 to 65535",
        "line 7: port: expected a port number, such as 8080 or 53/UDP",
        "line 8: protocol: unknown protocol \"X\"",
        "line 9: longer than 1048576 bytes",
        "line 10: to: ",
        "-",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error:?} does not begin with {start:?}");
    }
    assert_eq!((&answers[1]["id"], &answers[1]["from"]), (&7.into(), &"shop/wbe".into()));
    assert_eq!(answers[10]["verdict"], "allow");
}

#[test]
fn bytes_that_are_no_text_and_files_that_are_not_there() {
    let scene = Scene::new();
    let error = scene.error(&["--queries", "none.jsonl"]);
    assert!(error.starts_with("error: --queries none.jsonl: "), "{error}");
    let error = scene.error(&["--queries", "x", "--from", "a"]);
    assert!(error.contains("cannot be used with"), "{error}");
    let error = scene.error(&["--no-explanation", "--from", "a", "--to", "b"]);
    assert!(error.contains("--queries"), "{error}");
}

/// Who writes a line gets its answer before writing the next.
#[test]
fn answers_come_line_by_line() {
    let directory = tempfile::TempDir::new().unwrap();
    std::fs::write(directory.path().join("cluster.yaml"), super::scene::CLUSTER).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_observer"))
        .current_dir(&directory)
        .args(["explain", "-f", "cluster.yaml", "--queries", "-", "--no-explanation"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for (port, verdict) in [(8080, "allow"), (8081, "deny")] {
        writeln!(stdin, "{{\"from\":\"shop/web-8c8c-c\",\"to\":\"shop/api-2\",\"port\":{port}}}").unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["verdict"], verdict);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// The cases of the engine, asked as people ask.
#[test]
fn the_cases_of_the_engine_have_their_verdicts() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut asked = 0;
    for entry in std::fs::read_dir(&cases).unwrap() {
        let case = entry.unwrap().path();
        let group = case.file_name().unwrap().to_string_lossy().into_owned();
        // A handful: every run of the program costs some milliseconds.
        if !["04-", "09-", "11-", "12-", "13-", "17-", "20-", "31-"].iter().any(|prefix| group.starts_with(prefix)) {
            continue;
        }
        let expected: Vec<Value> =
            std::fs::read_to_string(case.join("expect.jsonl")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for options in [&[][..], &["--no-explanation"]] {
            let run = run(&case, &[&["-f", ".", "--queries", "expect.jsonl"], options].concat(), "");
            assert!(run.code == 0, "{group}: {}{}", run.err, run.out);
            let answers = lines(&run);
            assert_eq!(answers.len(), expected.len(), "{group}");
            for (answer, expected) in answers.iter().zip(&expected) {
                assert_eq!(answer["verdict"], expected["verdict"], "{group} {options:?}: {expected}");
                asked += 1;
            }
        }
    }
    assert!(asked > 150, "only {asked} questions were asked");
}
