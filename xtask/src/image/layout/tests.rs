use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

const BOTH: [Platform; 2] = [Platform::Amd64, Platform::Arm64];

fn about() -> About {
    About { name: "registry.example/observer:7".to_owned(), created: 1_800_000_000, revision: Some("abc".to_owned()) }
}

/// A layout around a program that a umask and a time of its own made.
fn written(mode: u32, platforms: &[Platform]) -> (TempDir, Vec<u8>, String) {
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("program");
    fs::write(&program, b"a program").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
    let archive = directory.path().join("image.tar");
    let images = platforms.iter().map(|&platform| Image { platform, program: program.clone(), sbom: json!({"spdxVersion": "SPDX-2.3"}) });
    let images: Vec<Image> = images.collect();
    let digest = write(&images, &about(), &directory.path().join("work"), &archive).unwrap();
    (directory, fs::read(archive).unwrap(), digest)
}

#[test]
fn the_same_sources_give_the_same_bytes() {
    let (_one, first, _) = written(0o700, &BOTH);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (_other, second, _) = written(0o777, &BOTH);
    assert!(first == second, "{} and {} bytes", first.len(), second.len());
}

#[test]
fn every_blob_is_what_refers_to_it_says() {
    let (directory, archive, digest_of_manifest) = written(0o755, &[Platform::Amd64]);
    let unpacked = directory.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar").arg("-xf").arg(directory.path().join("image.tar")).arg("-C").arg(&unpacked)).unwrap();
    assert!(!archive.is_empty());
    assert!(directory.path().join("work/files/amd64/sbom.spdx.json").is_file(), "deploy/Dockerfile takes them from there");
    let blob = |reference: &Value| -> PathBuf {
        let (_, name) = reference["digest"].as_str().unwrap().split_once(':').unwrap();
        let file = unpacked.join("blobs/sha256").join(name);
        assert_eq!(digest(&file).unwrap(), reference["digest"].as_str().unwrap());
        assert_eq!(file.metadata().unwrap().len(), reference["size"].as_u64().unwrap());
        file
    };
    let read = |file: PathBuf| -> Value { serde_json::from_slice(&fs::read(file).unwrap()).unwrap() };
    let index = read(unpacked.join("index.json"));
    assert_eq!(index["manifests"][0]["digest"], *digest_of_manifest);
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "7");
    assert_eq!(index["manifests"][0]["platform"], json!({"architecture": "amd64", "os": "linux"}));
    let manifest = read(blob(&index["manifests"][0]));
    let config = read(blob(&manifest["config"]));
    assert_eq!(config["config"]["Entrypoint"], json!(["/observer"]));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "abc");
    let layer = blob(&manifest["layers"][0]);
    let listed = output(Command::new("tar").args(["-tvzf"]).arg(&layer)).unwrap();
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let modes: Vec<_> = lines.iter().map(|line| (line[0], line[1], *line.last().unwrap())).collect();
    assert_eq!(modes, [("-rwxr-xr-x", "0/0", "observer"), ("-rw-r--r--", "0/0", "sbom.spdx.json")]);
    let plain = directory.path().join("plain.tar");
    fs::write(&plain, Command::new("gzip").arg("-dc").arg(&layer).output().unwrap().stdout).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&plain).unwrap()]));
}

#[test]
fn several_platforms_are_one_image() {
    let (directory, _, digest) = written(0o755, &BOTH);
    let read =
        |file: &str| -> Value { serde_json::from_slice(&fs::read(directory.path().join("work/layout").join(file)).unwrap()).unwrap() };
    let blob = |reference: &Value| read(&format!("blobs/{}", reference["digest"].as_str().unwrap().replace(':', "/")));
    let index = read("index.json");
    assert_eq!((index["manifests"].as_array().unwrap().len(), &index["manifests"][0]["digest"]), (1, &json!(digest)));
    assert_eq!(index["manifests"][0]["mediaType"], INDEX);
    let platforms = blob(&index["manifests"][0]);
    let found: Vec<String> = platforms["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| {
            let config = blob(&blob(manifest)["config"]);
            assert_eq!(manifest["platform"], json!({"architecture": config["architecture"], "os": config["os"]}));
            config["architecture"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(found, ["amd64", "arm64"]);
}
