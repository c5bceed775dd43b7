//! The table in docs/src/settings.md is `config::ROWS`, between the markers `<!-- config -->` and `<!-- /config -->`.
//!
//! `UPDATE_SETTINGS=1` rewrites the table instead of comparing.

use std::path::Path;

use transfer_engine::config::ROWS;

const BEGIN: &str = "<!-- config -->\n";
const END: &str = "<!-- /config -->";
const HEAD: [&str; 2] = ["| variable | default | meaning |", "|---|---|---|"];

fn rows() -> Vec<String> {
    let row = |row: &transfer_engine::config::Row| {
        format!("| `{}` | {} | {} |", row.name, row.default, row.meaning.replace('|', "\\|"))
    };
    ROWS.iter().map(row).collect()
}

/// Before the table, the table, behind it.
fn parts(page: &str) -> (&str, &str, &str) {
    let missing = "docs/src/settings.md has no <!-- config --> line followed by <!-- /config -->";
    let (before, rest) = page.split_once(BEGIN).expect(missing);
    let (table, after) = rest.split_once(END).expect(missing);
    (before, table, after)
}

#[test]
fn the_page_lists_every_setting_and_nothing_else() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/settings.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (before, table, after) = parts(&page);
    if std::env::var_os("UPDATE_SETTINGS").is_some_and(|value| value == "1") {
        let lines: Vec<String> = HEAD.iter().map(|line| line.to_string()).chain(rows()).collect();
        std::fs::write(&path, format!("{before}{BEGIN}{}\n{END}{after}", lines.join("\n"))).unwrap();
        return;
    }
    let hint = "run UPDATE_SETTINGS=1 cargo test --test settings, then look at git diff";
    let found: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).skip(HEAD.len()).collect();
    for row in rows() {
        assert!(found.contains(&row.as_str()), "settings.md lacks or changes this row; {hint}\n{row}");
    }
    for row in &found {
        assert!(
            rows().iter().any(|known| known == row),
            "settings.md has a row of no setting; {hint}\n{row}"
        );
    }
    assert_eq!(found, rows(), "settings.md has the rows in another order or twice; {hint}");
}

#[test]
fn settings_have_different_names() {
    let names: std::collections::BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ROWS.len());
    assert!(names.iter().all(|name| name.starts_with("MC_")), "{names:?}");
}
