//! deploy/Dockerfile makes the same image, another way: what can be known of that without a container engine.

use std::fs;
use std::path::{Path, PathBuf};

use parse_dockerfile::{Command, Flag, Instruction, Source, Stage};
use serde_json::json;

use super::layout::{About, config};
use super::platform::Platform;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text() -> String {
    fs::read_to_string(root().join("deploy/Dockerfile")).unwrap()
}

fn stages<T>(look: impl FnOnce([Stage<'_, '_>; 2]) -> T) -> T {
    let text = text();
    let file = parse_dockerfile::parse(&text).unwrap();
    let stages: Vec<Stage<'_, '_>> = file.stages().collect();
    look(stages.try_into().unwrap_or_else(|_| panic!("one stage builds, the other is the image")))
}

fn option<'a>(flags: &'a [Flag<'_>], name: &str) -> Option<&'a str> {
    flags.iter().find(|flag| flag.name.value == name).and_then(|flag| flag.value.as_ref()).map(|value| &*value.value)
}

/// What engines are given, and the time in both forms.
const REVISION: &str = "0123456789abcdef";
const CREATED: &str = "2027-01-15T08:00:00Z";
const SECONDS: i64 = 1_800_000_000;

/// Puts in what `--build-arg` gives; nothing else is asked for.
fn filled(text: &str) -> String {
    let filled = text.replace("$CREATED", CREATED).replace("$REVISION", REVISION);
    assert!(!filled.contains('$'), "{filled}");
    filled
}

#[test]
fn it_is_configured_as_the_image_of_xtask_is() {
    let about = About { name: "observer:1".to_owned(), created: SECONDS, revision: Some(REVISION.to_owned()) };
    let expected = config(Platform::Amd64, &about, "").unwrap()["config"].take();
    let mut found = json!({"Labels": {}});
    stages(|[_, image]| {
        for instruction in image.instructions {
            match instruction {
                Instruction::Label(label) => {
                    let (name, value) = label.arguments.value.split_once('=').expect("one label in each instruction");
                    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quoted");
                    found["Labels"][name] = json!(filled(value));
                }
                Instruction::User(user) => found["User"] = json!(user.arguments.value),
                Instruction::Workdir(directory) => found["WorkingDir"] = json!(directory.arguments.value),
                Instruction::Entrypoint(entrypoint) => {
                    let Command::Exec(words) = &entrypoint.arguments else { panic!("there is no shell in the image") };
                    found["Entrypoint"] = words.value.iter().map(|word| json!(word.value)).collect();
                }
                Instruction::Copy(_) | Instruction::Arg(_) | Instruction::From(_) => {}
                other => panic!("not in the image of xtask: {other:?}"),
            }
        }
    });
    assert_eq!(found, expected);
}

#[test]
fn it_holds_the_files_that_xtask_makes() {
    stages(|[build, image]| {
        assert_eq!(image.from.image.value, "scratch");
        let copies: Vec<_> =
            image.instructions.iter().filter_map(|of| if let Instruction::Copy(copy) = of { Some(copy) } else { None }).collect();
        let [copy] = copies[..] else { panic!("{copies:?}") };
        let (_, name) = build.from.as_.as_ref().unwrap();
        assert_eq!(option(&copy.options, "from"), Some(&*name.value));
        let [Source::Path(from)] = &copy.src[..] else { panic!("{copy:?}") };
        // A test of the layout holds that they are there.
        assert_eq!((&*from.value, &*copy.dest.value), ("/netpol-observer/target/image/layout/files/$TARGETARCH/", "/"));
    });
}

#[test]
fn it_builds_by_xtask_alone_with_a_compiler_of_one_version() {
    stages(|[build, _]| {
        let (name, tag) = build.from.image.value.split_once(':').expect("a version");
        let wanted = env!("CARGO_PKG_RUST_VERSION");
        assert_eq!(name, "rust");
        let (version, variant) = tag.split_once('-').unwrap();
        assert!(version.starts_with(&format!("{wanted}.")) && version.split('.').count() == 3, "{version} is not a release of {wanted}");
        // That of which Debian's packages for the eBPF program are.
        assert_eq!(variant, "slim-bookworm");
        // Otherwise the compiler would be emulated.
        assert_eq!(option(&build.from.options, "platform"), Some("$BUILDPLATFORM"));
        let runs: Vec<_> =
            build.instructions.iter().filter_map(|of| if let Instruction::Run(run) = of { Some(&run.arguments) } else { None }).collect();
        let [Command::Shell(line)] = runs[..] else { panic!("{runs:?}") };
        assert_eq!(line.value, r#"cargo xtask image --platform "$TARGETOS/$TARGETARCH""#);
    });
}

/// `.dockerignore` must leave what is compiled, and keep out what would make every build a new one.
#[test]
fn the_context_holds_what_is_compiled() {
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let patterns: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(patterns.contains(&".git") && patterns.contains(&"**/target"), "{patterns:?}");
    for needed in
        ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "netpol-observer", "netpol-observer-common", "netpol-observer-ebpf", "xtask"]
    {
        assert!(root().join(needed).exists(), "{needed}");
        assert!(!patterns.contains(&needed.split('/').next().unwrap()), "{needed}");
    }
}
