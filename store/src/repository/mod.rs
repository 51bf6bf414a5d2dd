//! The repository: creating, opening, and the state that its commands share.

mod forget;
mod history;
mod index_sync;
mod keys;
mod reseal;
mod reserve;
mod rotate;
mod snapshots;
mod stored;
mod unlock;
mod view;

pub use forget::Forgotten;
pub use index_sync::SharedIndex;
pub(crate) use index_sync::lost_chunk;
pub use keys::KeyState;
pub use reseal::Outdated;
pub use rotate::{OtherKeys, Rotation};
pub use snapshots::Snapshot;
pub(crate) use stored::StoredHead;
pub use view::HeadView;
pub(crate) use view::{Attempt, CatalogueEdit};

use crate::backend::{self, Backend};
use crate::cancel::Cancel;
use crate::catalogue::{self, CatalogueNodes, CatalogueSchema, PackEntry};
use crate::crypto::{DomainKeys, Generation, KeyRing, MetadataKey, RepositoryKey};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::{ChunkKind, DomainId, ObjectName, RepositoryId, SlotId};
use crate::index::Index;
use crate::limits::RECORD_BYTES_MAX;
use crate::pack::Level;
use crate::record::{
    ChunkSizes, Config, Head, KdfCost, KeySlot, NewSlot, Secret, Sizes, UncheckedConfig,
};
use crate::tree::{Builder, TreeParams};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use stillpoint_chunker::{Chunker, Gear, Params, Profile};
use unlock::Unlocked;

/// What opening an index gives: the index, and a sentence for the user when it had to be made anew.
pub struct OpenedIndex {
    /// The index; its state is None when it is new.
    pub index: Box<dyn Index>,
    /// Why an earlier index was dropped, if one was.
    pub notice: Option<String>,
}

/// Opens the index kept in a folder. Called at most once, and only when a look-up is needed.
pub type IndexProvider = Arc<dyn Fn(&Path) -> Result<OpenedIndex> + Send + Sync>;

/// How to open a repository.
#[derive(Clone)]
pub struct OpenOptions {
    /// Where the index and the remembered head of this repository lie; None keeps everything in memory.
    pub cache_dir: Option<PathBuf>,
    /// Opens the index in a sub-folder of `cache_dir`; unused without one.
    pub index: IndexProvider,
    /// Raised to stop long work.
    pub cancel: Cancel,
}

impl OpenOptions {
    /// Nothing is kept on disk beside the repository; the index lives in memory.
    pub fn in_memory() -> Self {
        Self {
            cache_dir: None,
            index: Arc::new(|_| Err(Error::Invalid("there is no folder for an index".into()))),
            cancel: Cancel::new(),
        }
    }

    /// The same with the folder of this repository in the cache.
    fn for_repository(mut self, repository: &RepositoryId) -> Self {
        if let Some(dir) = &mut self.cache_dir {
            dir.push(repository.to_string());
        }
        self
    }
}

/// What a new repository is created with.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// A name for the first key slot, for people.
    pub label: String,
    /// What one try of a passphrase costs.
    pub kdf: KdfCost,
    /// The compression level for those who ask for none.
    pub level: Level,
    /// Sizes of chunks. Repositories with other sizes share nothing when copied into each other.
    pub chunks: ChunkSizes,
    /// Sizes of manifest nodes.
    pub nodes: Sizes,
}

impl Default for CreateOptions {
    fn default() -> Self {
        let sizes_of = |profile: Profile| {
            let params = profile.params();
            Sizes { min: params.min_bytes(), avg: params.avg_bytes(), max: params.max_bytes() }
        };
        Self {
            label: String::new(),
            kdf: KdfCost::default(),
            level: Level::DEFAULT,
            chunks: ChunkSizes {
                general: sizes_of(Profile::General),
                dump: sizes_of(Profile::Dump),
                image: sizes_of(Profile::Image),
            },
            nodes: Sizes {
                min: TreeParams::MIN_BYTES,
                avg: TreeParams::AVG_BYTES,
                max: TreeParams::MAX_BYTES,
            },
        }
    }
}

fn new_config(env: &dyn Env, options: &CreateOptions) -> Config {
    let id = RepositoryId::random(env);
    let mut config = Config::new(id, env.now(), options.chunks, options.nodes);
    config.level = options.level;
    config
}

/// An open repository. Shared behind an `Arc` by everything that works on it.
pub struct Repository {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) config: Config,
    pub(crate) keys: KeyRing,
    pub(crate) metadata: MetadataKey,
    pub(crate) domain: DomainKeys,
    pub(crate) options: OpenOptions,
    /// The slot that opened the repository.
    pub(crate) slot: SlotId,
    /// BLAKE3 of the head that the rotation which brought our newest keys has not replaced yet.
    pending: Mutex<Option<[u8; 32]>>,
    index: Mutex<Option<Arc<SharedIndex>>>,
    notices: Mutex<Vec<String>>,
    gear: OnceLock<Arc<Gear>>,
}

impl Repository {
    /// Creates a repository with one key slot, and opens it.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one.
    pub fn create(
        backend: Arc<dyn Backend>,
        env: Arc<dyn Env>,
        secret: &Secret,
        create: &CreateOptions,
        options: OpenOptions,
    ) -> Result<Arc<Self>> {
        if backend.size_bytes(&ObjectName::Config)?.is_some() {
            return Err(Error::AlreadyExists { location: backend.location() });
        }
        backend.initialise()?;
        let config = new_config(&*env, create);
        let keys = KeyRing::new(RepositoryKey::generate(&*env));
        let metadata = keys.metadata();
        let repository = config.repository;
        let new = NewSlot { secret, label: &create.label, cost: create.kdf };
        let slot = KeySlot::wrap(&keys, &new, &repository, None, &*env)?;
        backend::put(&*backend, &ObjectName::Key(slot.id()), &slot.encode())?;
        let mut nodes = CatalogueNodes::new(&*backend, repository, &metadata, &*env, 0);
        let params = catalogue::params(&metadata);
        let root = Builder::<CatalogueSchema>::new(&params, &mut nodes).finish()?;
        let head = Head::first(root, crate::id::TransactionId::random(&*env));
        let bytes = head.seal(repository, &metadata, &*env);
        match backend.swap_head(None, &bytes)? {
            backend::Swap::Done => {}
            backend::Swap::Lost => {
                return Err(Error::AlreadyExists { location: backend.location() });
            }
        }
        // The config comes last: only a repository that has one exists.
        backend::put(&*backend, &ObjectName::Config, &config.encode(&metadata))?;
        let unlocked = Unlocked { slot: slot.id(), keys, pending: None, notice: None };
        let options = options.for_repository(&repository);
        Ok(Arc::new(Self::assemble(backend, env, config, unlocked, options)))
    }

    /// Opens a repository: reads the config and key slots; the head too if the keys were rotated.
    ///
    /// # Errors
    /// `NoRepository`, `WrongSecret`, `StaleSecret`, `Unsupported`, `Damaged`.
    pub fn open(
        backend: Arc<dyn Backend>,
        env: Arc<dyn Env>,
        secret: &Secret,
        options: OpenOptions,
    ) -> Result<Arc<Self>> {
        let config = match backend::read_whole(&*backend, &ObjectName::Config, RECORD_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(Error::Missing { .. }) => {
                return Err(Error::NoRepository { location: backend.location() });
            }
            Err(error) => return Err(error),
        };
        let unverified = UncheckedConfig::parse(&config)?;
        let unlocked = unlock::unlock(&*backend, secret, &unverified.repository())?;
        let config = unverified.check(&unlocked.keys.metadata())?;
        let options = options.for_repository(&config.repository);
        Ok(Arc::new(Self::assemble(backend, env, config, unlocked, options)))
    }

    fn assemble(
        backend: Arc<dyn Backend>,
        env: Arc<dyn Env>,
        config: Config,
        unlocked: Unlocked,
        options: OpenOptions,
    ) -> Self {
        let Unlocked { slot, keys, pending, notice } = unlocked;
        let metadata = keys.metadata();
        let domain = keys.domain(DomainId::default());
        Self {
            backend,
            env,
            config,
            keys,
            metadata,
            domain,
            options,
            slot,
            pending: Mutex::new(pending),
            index: Mutex::new(None),
            notices: Mutex::new(notice.into_iter().map(str::to_owned).collect()),
            gear: OnceLock::new(),
        }
    }

    /// The same repository, opened by other keys.
    fn unlocked_by(&self, unlocked: Unlocked) -> Self {
        let (backend, env) = (Arc::clone(&self.backend), Arc::clone(&self.env));
        Self::assemble(backend, env, self.config.clone(), unlocked, self.options.clone())
    }

    /// The repository's identity.
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// The generation of the keys that seal what is written.
    pub fn generation(&self) -> Generation {
        self.keys.generation()
    }

    /// True for a live pack that older keys seal: whoever had those can open it, until it is written anew.
    pub fn is_outdated(&self, entry: &PackEntry) -> bool {
        entry.generation < self.generation()
    }

    fn pending(&self) -> MutexGuard<'_, Option<[u8; 32]>> {
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The parameters drawn at creation.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Time and randomness.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }

    /// Where the objects lie.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The flag that stops long work.
    pub fn cancel(&self) -> &Cancel {
        &self.options.cancel
    }

    /// Cuts streams of this kind with this repository's secret table and names the chunks.
    ///
    /// # Errors
    /// `Invalid` when the repository's sizes are not usable by this program.
    pub fn chunker(&self, profile: Profile) -> Result<Chunker> {
        let sizes = match profile {
            Profile::General => self.config.chunks.general,
            Profile::Dump => self.config.chunks.dump,
            Profile::Image => self.config.chunks.image,
        };
        let params = Params::new(sizes.min, sizes.avg, sizes.max)
            .map_err(|error| Error::Invalid(format!("config: {error}")))?;
        let gear = self.gear.get_or_init(|| Arc::new(Gear::keyed(self.domain.gear_secret())));
        Ok(Chunker::new(Arc::clone(gear), params, self.domain.id_key(ChunkKind::Data).clone()))
    }

    /// How nodes of manifests and content lists are cut.
    pub fn tree_params(&self) -> TreeParams {
        let Sizes { min, avg, max } = self.config.nodes;
        TreeParams {
            boundary_key: *self.domain.boundary_key(),
            min_bytes: min,
            avg_bytes: avg,
            max_bytes: max,
        }
    }

    pub(crate) fn catalogue_params(&self) -> TreeParams {
        catalogue::params(&self.metadata)
    }

    /// One-time messages for the user, such as why an index was rebuilt. Each is given once.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().expect("no panic while noting"))
    }

    /// Adds such a message.
    pub fn note(&self, message: String) {
        self.notices.lock().expect("no panic while noting").push(message);
    }
}
