//! The Python client: its own tests, with the programs of this build.

use gaffer_testkit::{node, wait_for};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn the_python_client_passes_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/python");
    let log = tempfile::NamedTempFile::new().expect("a file for what it says");
    let mut tests = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover", "-s", "tests", "-v"])
        .current_dir(&root)
        .env("GAFFER_TEST_BINS", node::bin_dir())
        .env("PYTHONWARNINGS", "error::SyntaxWarning")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.reopen().expect("the file"))
        .spawn()
        .expect("python3 is needed for this test");
    let status = wait_for(Duration::from_secs(240), "the end of the Python tests", || {
        tests.try_wait().expect("its status")
    });
    let said = std::fs::read_to_string(log.path()).expect("what it said");
    assert!(status.success(), "{said}");
    let skipped = said.contains("skipped");
    assert!(said.contains("Ran 11 tests") && !skipped, "{said}");
}
