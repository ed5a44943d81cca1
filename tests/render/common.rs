//! A store in memory and a confdir on disk, for driving the renderer through its public API.
//!
//! Everything lives under the target folder. Waiting is always for a condition, with a deadline.

use althing::base::id::Revision;
use althing::base::range::KeyRange;
use althing::render::worker::{Options, Renderer};
use althing::render::{Answer, Failpoints, Item, ResourceStatus, Snapshot, Source};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

type Keys = BTreeMap<Bytes, (Bytes, Revision)>;

/// Keys with revisions, and who waits for them.
pub(crate) struct Store {
    keys: Mutex<Keys>,
    /// Every change so far, as revision and key.
    log: Mutex<Vec<(Revision, Bytes)>>,
    newest: watch::Sender<Revision>,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        let newest = watch::Sender::new(Revision(1));
        Arc::new(Self { keys: Mutex::default(), log: Mutex::default(), newest })
    }

    pub(crate) fn with(pairs: &[(&str, &str)]) -> Arc<Self> {
        let store = Self::new();
        for (key, value) in pairs {
            store.put(key, value);
        }
        store
    }

    pub(crate) fn put(&self, key: &str, value: &str) -> Revision {
        self.change(key, Some(value))
    }

    pub(crate) fn delete(&self, key: &str) -> Revision {
        self.change(key, None)
    }

    fn change(&self, key: &str, value: Option<&str>) -> Revision {
        let mut keys = self.keys.lock().unwrap();
        let revision = self.newest.borrow().next();
        let key = Bytes::copy_from_slice(key.as_bytes());
        match value {
            Some(value) => {
                keys.insert(key.clone(), (Bytes::copy_from_slice(value.as_bytes()), revision))
            }
            None => keys.remove(&key),
        };
        self.log.lock().unwrap().push((revision, key));
        self.newest.send_replace(revision);
        revision
    }

    /// Makes the store what this JSON object of keys and values says.
    pub(crate) fn become_json(&self, text: &str) {
        let wanted: BTreeMap<String, String> = serde_json::from_str(text).unwrap();
        let old: Vec<Bytes> = self.keys.lock().unwrap().keys().cloned().collect();
        for key in old {
            let key = String::from_utf8(key.to_vec()).unwrap();
            if !wanted.contains_key(&key) {
                self.delete(&key);
            }
        }
        for (key, value) in wanted {
            self.put(&key, &value);
        }
    }

    /// A store restored from a backup: fewer revisions.
    pub(crate) fn go_back_to(&self, revision: Revision) {
        self.newest.send_replace(revision);
    }
}

struct Frozen(Keys, Revision);

impl Snapshot for Frozen {
    fn revision(&self) -> Revision {
        self.1
    }

    fn range(&self, range: KeyRange) -> Answer<'_, Vec<Item>> {
        let found = self.0.iter().filter(|(key, _)| range.contains(key));
        let items = found.map(|(key, (value, mod_revision))| Item {
            key: key.clone(),
            value: value.clone(),
            mod_revision: *mod_revision,
            ttl_seconds: None,
        });
        let items = items.collect();
        Box::pin(async move { Ok(items) })
    }
}

impl Source for Store {
    fn snapshot(&self, _at_least: Revision) -> Answer<'_, Box<dyn Snapshot>> {
        let keys = self.keys.lock().unwrap();
        let frozen = Frozen(keys.clone(), *self.newest.borrow());
        Box::pin(async move { Ok(Box::new(frozen) as Box<dyn Snapshot>) })
    }

    fn changed(&self, ranges: Vec<KeyRange>, after: Revision) -> Answer<'_, Revision> {
        let mut newest = self.newest.subscribe();
        Box::pin(async move {
            loop {
                newest.borrow_and_update();
                let hit = self.log.lock().unwrap().iter().rev().find_map(|(revision, key)| {
                    let matters = ranges.iter().any(|range| range.contains(key));
                    (*revision > after && matters).then_some(*revision)
                });
                match hit {
                    Some(revision) => return Ok(revision),
                    None => newest.changed().await.unwrap(),
                }
            }
        })
    }
}

/// A confdir, a place for rendered files, and the renderer's state.
pub(crate) struct Bench {
    root: tempfile::TempDir,
    pub(crate) failpoints: Failpoints,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for dir in ["confdir/conf.d", "confdir/templates", "out", "state"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        Self { root, failpoints: Failpoints::none() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Path of a rendered file.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    pub(crate) fn template(&self, name: &str, text: &str) {
        std::fs::write(self.path("confdir/templates").join(name), text).unwrap();
    }

    /// A resource `NAME` with template `NAME.tera`, destination `out/NAME`, and more lines.
    pub(crate) fn resource(&self, name: &str, more: &str) {
        let dest = self.out(name);
        let text =
            format!("[template]\nsrc = \"{name}.tera\"\ndest = \"{}\"\n{more}\n", dest.display());
        self.resource_file(name, &text);
    }

    pub(crate) fn resource_file(&self, name: &str, text: &str) {
        std::fs::write(self.path("confdir/conf.d").join(format!("{name}.toml")), text).unwrap();
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.path("confdir"), self.path("state"));
        options.worker_program = Some(env!("CARGO_BIN_EXE_althing").into());
        options.retry_first = Duration::from_millis(50);
        options.failpoints = self.failpoints.clone();
        options.environment = vec![("GREETING".into(), "hello".into())];
        options.node = vec![("name".into(), "n1".into())];
        options
    }

    pub(crate) fn start(&self, store: &Arc<Store>) -> Renderer {
        Renderer::start(self.options(), store.clone()).unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.out(name)).unwrap_or_default()
    }
}

pub(crate) fn status(renderer: &Renderer, name: &str) -> ResourceStatus {
    renderer.status().into_iter().find(|status| status.name == name).unwrap_or_default()
}

pub(crate) fn error(renderer: &Renderer, name: &str) -> String {
    status(renderer, name).error.unwrap_or_default()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn until_file(bench: &Bench, name: &str, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while bench.read(name) != text {
        let found = bench.read(name);
        assert!(Instant::now() < deadline, "{name} is {found:?}, wanted {text:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
