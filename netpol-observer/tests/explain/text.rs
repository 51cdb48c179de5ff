//! What people read. The snapshots are the text itself.

use std::path::Path;

use insta::assert_snapshot;

use super::scene::{Scene, run};

/// The answer as text, with the command line in front.
fn shown(scene: &Scene, arguments: &[&str]) -> String {
    let run = scene.explain(arguments);
    assert_eq!(run.err, "");
    format!("$ observer explain {}\n{}exit status {}\n", arguments.join(" "), run.out, run.code)
}

#[test]
fn answers_about_the_scene() {
    let scene = Scene::new();
    scene.file("names.json", r#"{"api.bank.example": ["198.51.100.9", "203.0.113.9"]}"#);
    let questions: &[&[&str]] = &[
        &["--from", "shop/web-7d9f-a", "--to", "shop/api-1", "--port", "8080"],
        &["--from", "shop/deploy/web", "--to", "shop/api-2", "--port", "8080"],
        &["--from", "shop/deploy/web", "http://api.shop/orders"],
        &["--from", "shop/invoice-100-x", "--to", "shop/svc/db"],
        &["--from", "shop/web-7d9f-a", "http://reports"],
        &["--from", "shop/web-7d9f-a", "http://locked:8080"],
        &["--from", "shop/web-8c8c-c", "http://old-api"],
        &["--from", "shop/invoice-100-x", "https://api.bank.example"],
        &["--from", "shop/invoice-100-x", "--domain-names", "names.json", "https://payments.shop"],
        &["--from", "shop/fresh", "--to", "shop/api-2", "--port", "8080"],
        &["--from", "shop/api-4", "--to", "shop/db-0", "--port", "5432"],
        &["--from", "shop/invoice-100-x", "--to", "shop/db-0", "--protocol", "ICMP"],
        &["--from", "node/n1", "--to", "shop/api-2", "--port", "8080"],
    ];
    let all: Vec<String> = questions.iter().map(|question| shown(&scene, question)).collect();
    assert_snapshot!(all.join("\n"));
}

/// The example shop, so that a change of its policies or of the words is seen.
#[test]
fn answers_about_the_example_shop() {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
    let questions: &[&[&str]] = &[
        &["--from", "shop/deploy/frontend", "http://api.shop:80/orders"],
        &["--from", "shop/deploy/frontend-legacy", "http://api.shop:80/orders"],
        &["--from", "tools/sts/prometheus-trial", "--to", "shop/deploy/api", "--port", "9090"],
        &["--from", "shop/cronjob/invoice", "postgres://database.shop/orders"],
        &["--from", "203.0.113.200", "--to", "shop/deploy/frontend", "--port", "8080"],
        &["--from", "shop/deploy/payment", "http://api"],
    ];
    let mut all = String::new();
    for question in questions {
        let run = run(&shop, &[&["-f", "."], *question].concat(), "");
        assert_eq!(run.err, "");
        all.push_str(&format!("$ observer explain {}\n{}exit status {}\n\n", question.join(" "), run.out, run.code));
    }
    assert_snapshot!(all);
}
