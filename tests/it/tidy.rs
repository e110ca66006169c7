//! House rules that a machine can check, as tests: who may use whom, what a room must say of itself, what may not
//! stand in a file. A rule that a lint can express is a lint instead (`Cargo.toml`, `clippy.toml`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The arrows between the rooms of `src/`: a room, the rooms it may use, and why it needs them.
///
/// Read it downwards: a room stands above everything it uses, so nothing points up and there is no cycle (a test
/// checks that too). `schemas` and `pipelines` are crates of their own, cargo keeps their direction.
const ARROWS: &[(&str, &[&str], &str)] = &[
    ("main", &["cli"], "the binary is one call"),
    (
        "cli",
        &[
            "app",
            "config",
            "admin",
            "gateway",
            "protocol",
            "simulator",
            "sessions",
            "query",
            "custody",
            "export",
            "analysis",
            "ingest",
            "notify",
            "recordings",
            "migration",
            "report",
            "hub",
            "accounts",
            "store",
            "telemetry",
            "texts",
            "entropy",
            "clock",
        ],
        "a command starts the service or works on files; it wires, so it may use every room",
    ),
    (
        "app",
        &[
            "config",
            "gateway",
            "admin",
            "protocol",
            "sessions",
            "query",
            "custody",
            "migration",
            "export",
            "notify",
            "analysis",
            "ingest",
            "push",
            "hub",
            "accounts",
            "store",
            "telemetry",
            "wechat",
            "entropy",
            "clock",
            "shutdown",
        ],
        "wires all rooms and shuts them down in order",
    ),
    (
        "config",
        &["gateway", "sessions", "query", "custody", "analysis", "ingest", "notify", "push", "store", "wechat"],
        "makes the rooms' options out of keys",
    ),
    (
        "gateway",
        &[
            "protocol",
            "sessions",
            "analysis",
            "ingest",
            "notify",
            "custody",
            "migration",
            "hub",
            "accounts",
            "recordings",
            "report",
            "store",
            "telemetry",
            "texts",
            "wechat",
            "clock",
            "shutdown",
        ],
        "the edge calls the rooms that answer a client, and maps their errors to codes",
    ),
    ("admin", &["sessions", "analysis", "report", "store", "texts"], "the dashboard: read-only pages and their JSON"),
    ("protocol", &["sessions", "ingest", "hub", "clock"], "turns wire text into these rooms' values and back"),
    ("simulator", &["recordings", "clock"], "a client: of the service it knows the wire only, from outside"),
    (
        "sessions",
        &["ingest", "hub", "push", "accounts", "store", "clock", "shutdown"],
        "ends a recording, commands its device",
    ),
    ("push", &["hub", "store", "clock"], "a device's registered address; the commands of the hub"),
    (
        "analysis",
        &["ingest", "hub", "store", "clock", "shutdown"],
        "reads sealed sessions, commits results, tells the admins; it does not know who is notified",
    ),
    (
        "notify",
        &["hub", "store", "wechat", "texts", "entropy", "clock", "shutdown"],
        "reads the outbox, hands notices to the hub, to WeChat and to webhooks; knows no analysis",
    ),
    ("wechat", &["entropy", "clock"], "a client of WeChat's servers"),
    (
        "query",
        &["ingest", "hub", "store", "clock", "shutdown", "threads"],
        "live batches of open recordings, sealed Parquet, presence",
    ),
    ("export", &["query", "store", "clock"], "rows of the tables, files of an archive"),
    ("custody", &["export", "store", "clock"], "copies, archives and erases what the service stored"),
    ("ingest", &["store", "clock", "threads"], "logs, numbers and seals; knows no session state but the catalog's"),
    (
        "migration",
        &["export", "ingest", "recordings", "store", "clock"],
        "reads archives, recordings, clocks and units as for live sessions, seals, fills the catalog",
    ),
    ("recordings", &[], "recording files for every command"),
    ("report", &["texts"], "turns an analysis into text and pictures; pure"),
    ("hub", &["clock"], "queues to connections"),
    ("accounts", &["store", "texts", "entropy", "clock"], "rows of the catalog, secrets, the language of a user"),
    ("store", &["clock"], "the only room that touches the service's files"),
    ("telemetry", &[], "log and metric set-up"),
    ("texts", &[], "every text in both languages"),
    ("entropy", &[], "the injected randomness"),
    ("clock", &[], "the injected wall clock"),
    ("threads", &[], "threads that give way"),
    ("shutdown", &[], "the word to stop"),
];

/// Longest source file that a reader is asked to take in, in lines.
const LINE_LIMIT: usize = 900;

/// Files above [`LINE_LIMIT`], each with the reason why it is one piece.
const LONG_FILES: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` except built ones and hidden folders of tools, sorted, relative to the root.
fn files(dir: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_built = matches!(name.as_str(), "target" | ".git" | "node_modules" | "volant-demo" | "volant-data");
            if path.is_dir() && !is_built {
                walk(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), &mut found);
    let mut found: Vec<_> = found.iter().map(|path| path.strip_prefix(root()).unwrap().to_owned()).collect();
    found.sort();
    found
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text without comments and without what is compiled for tests only; strings stay.
fn production_code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut test_item_follows = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed == "#[cfg(test)]" {
            test_item_follows = true;
            continue;
        }
        if test_item_follows && line.starts_with("mod ") && line.ends_with('{') {
            break; // an inline test module is the last item of a file
        }
        if !trimmed.starts_with("#[") {
            test_item_follows = false;
        }
        // `//` inside a string (a URL) is preceded by a colon.
        let comment = line.match_indices("//").map(|(at, _)| at).find(|&at| at == 0 || line.as_bytes()[at - 1] != b':');
        code.push_str(&line[..comment.unwrap_or(line.len())]);
        code.push('\n');
    }
    code
}

/// The names after `crate::`, also those of a brace list: `crate::{clock::Clock, hub}` gives `clock` and `hub`.
fn used_rooms(code: &str) -> BTreeSet<String> {
    let leading_name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for (at, marker) in code.match_indices("crate::") {
        let rest = &code[at + marker.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(leading_name(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = 0;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    rooms.insert(leading_name(&list[item..at]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    rooms.insert(leading_name(&list[item..at]));
                    item = at + 1;
                }
                _ => {}
            }
        }
    }
    rooms.remove("");
    rooms
}

/// The room of a source file: the first part of its path below `src/`.
fn room_of(path: &Path) -> String {
    let first = path.iter().nth(1).unwrap().to_string_lossy();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

#[test]
fn the_scanner_sees_every_form_of_use() {
    let code = "use crate::hub::{Handle, Sent};\nuse crate::{clock::Clock, store::{wal, seal}, query};\nlet x = crate::ingest::f();";
    let found: Vec<_> = used_rooms(code).into_iter().collect();
    assert_eq!(found, ["clock", "hub", "ingest", "query", "store"]);
    assert_eq!(
        production_code("a // b\n/// c\n\"ws://x\" // d\n#[cfg(test)]\nmod tests {\n x\n}"),
        "a \n\n\"ws://x\" \n"
    );
    assert_eq!(production_code("#[cfg(test)]\nmod tests;\nfn f() {}"), "mod tests;\nfn f() {}\n");
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().map(|&(room, below, _)| (room, below)).collect();
    let mut breaches = BTreeSet::new();
    for path in rust_files("src") {
        let room = room_of(&path);
        if room == "lib" || path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let Some(below) = arrows.get(room.as_str()) else {
            breaches.insert(format!("{}: room {room} is not in the arrow table", path.display()));
            continue;
        };
        for used in used_rooms(&production_code(&read(&path))) {
            if arrows.contains_key(used.as_str()) && used != room && !below.contains(&used.as_str()) {
                breaches.insert(format!("{}: {room} uses {used}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "arrows that point up or sideways:\n{}", Vec::from_iter(breaches).join("\n"));
}

#[test]
fn the_arrow_table_has_no_cycle_and_says_why() {
    let below: BTreeMap<_, _> = ARROWS.iter().map(|&(room, below, _)| (room, below)).collect();
    assert_eq!(below.len(), ARROWS.len(), "a room is listed twice");
    for (room, used, why) in ARROWS {
        assert!(!why.is_empty(), "{room}");
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = used.to_vec();
        while let Some(name) = next.pop() {
            assert_ne!(name, *room, "{room} reaches itself");
            if reached.insert(name) {
                next.extend(*below.get(name).unwrap_or_else(|| panic!("{room} uses {name}, which is no room")));
            }
        }
    }
}

#[test]
fn lib_lists_every_room_and_every_room_says_what_it_is() {
    let lib = read(Path::new("src/lib.rs"));
    for path in rust_files("src") {
        let is_room_root = path.iter().count() == 2 || path.file_name().is_some_and(|name| name == "mod.rs");
        if is_room_root {
            let text = read(&path);
            assert!(text.starts_with("//! "), "{} does not begin with what it is for", path.display());
        }
        let room = room_of(&path);
        assert!(
            matches!(room.as_str(), "lib" | "main") || lib.contains(&format!("pub mod {room};")),
            "room {room} is not in lib.rs"
        );
    }
    for dir in ["schemas/src", "pipelines/src"] {
        for path in rust_files(dir).into_iter().filter(|path| !path.ends_with("tests.rs")) {
            assert!(read(&path).starts_with("//! "), "{} does not begin with what it is for", path.display());
        }
    }
}

#[test]
fn source_files_can_be_read_in_one_sitting() {
    let long: BTreeSet<_> = LONG_FILES.iter().map(|&(path, _)| PathBuf::from(path)).collect();
    let mut breaches = Vec::new();
    for path in ["src", "schemas", "pipelines", "tests", "benches"].iter().flat_map(|dir| rust_files(dir)) {
        let lines = read(&path).lines().count();
        if lines > LINE_LIMIT && !long.contains(&path) {
            breaches.push(format!("{}: {lines} lines; split it, or list it with the reason", path.display()));
        }
        if lines <= LINE_LIMIT && long.contains(&path) {
            breaches.push(format!("{}: {lines} lines, need not be listed any more", path.display()));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// A file of the project must mean the same on every machine.
#[test]
fn no_file_names_a_machine_or_an_open_task() {
    // Put together here, so that this file does not contain them.
    let machine_paths =
        ["/home".to_owned() + "/", "/root".to_owned() + "/", "/work".to_owned() + "/", "C:".to_owned() + "\\"];
    let open_task = "TO".to_owned() + "DO";
    let mut breaches = Vec::new();
    for path in files(".") {
        let text_like =
            path.extension().is_some_and(|extension| {
                matches!(
                    extension.to_str(),
                    Some(
                        "rs" | "toml"
                            | "md"
                            | "py"
                            | "json"
                            | "sql"
                            | "slt"
                            | "service"
                            | "html"
                            | "css"
                            | "ts"
                            | "txt"
                            | "yml"
                    )
                )
            }) || path.file_name().is_some_and(|name| name == "Makefile" || name == "run" || name == "test");
        if !text_like || path.starts_with(".git") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if let Some(found) = machine_paths.iter().find(|found| line.contains(found.as_str())) {
                breaches.push(format!("{}:{}: path of a machine: {found}", path.display(), number + 1));
            }
            if line.contains(&open_task) && !line.contains(&format!("{open_task}(#")) {
                breaches.push(format!("{}:{}: an open task needs its number", path.display(), number + 1));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// Names in double quotes or backticks that look like a metric of ours.
fn metric_names(text: &str, quote: char) -> BTreeSet<String> {
    text.split(quote)
        .filter(|part| {
            part.strip_prefix("volant_").is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            })
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_telemetry_spec_and_the_code_name_the_same_metrics() {
    let code: BTreeSet<_> =
        rust_files("src").iter().flat_map(|path| metric_names(&production_code(&read(path)), '"')).collect();
    let spec = metric_names(&read(Path::new("docs/telemetry.md")), '`');
    assert!(!spec.is_empty(), "docs/telemetry.md lists no metric");
    let unlisted: Vec<_> = code.difference(&spec).collect();
    let unused: Vec<_> = spec.difference(&code).collect();
    assert!(unlisted.is_empty(), "in the code, not in docs/telemetry.md: {unlisted:?}");
    assert!(unused.is_empty(), "in docs/telemetry.md, not in the code: {unused:?}");
}

/// The Chinese page is for the same reader with the same questions.
#[test]
fn both_readmes_have_the_same_sections_and_name_the_same_settings() {
    let [english, chinese] = ["README.md", "README.zh.md"].map(|name| read(Path::new(name)));
    let sections = |text: &str| text.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(sections(&english), sections(&chinese), "number of sections");
    let settings = |text: &str| -> BTreeSet<String> {
        text.split('`')
            .filter(|part| part.starts_with("VOLANT_") || part.starts_with("--"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(settings(&english), settings(&chinese));
}
