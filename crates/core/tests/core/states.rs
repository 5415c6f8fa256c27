//! The committed table of states is the one in force.

use std::path::Path;

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the core may not, its tests read a committed file"
)]
fn the_committed_table_of_states_is_the_one_in_force() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    let page = gaffer_core::state_table_markdown();
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("docs");
        std::fs::write(&path, &page).expect("written");
    }
    let committed = std::fs::read_to_string(&path).expect("docs/states.md; BLESS=1 writes it");
    assert!(
        committed == page,
        "docs/states.md is not what the table says; BLESS=1 writes it anew"
    );
}
