//! Programs by module hash: put once, loaded and verified once a node.
//!
//! A module's bytes are a blob, keyed by the hash of *all* its bytes; the module hash leaves the debug section out. So
//! the tenant's cluster stream says which blob holds which module, and this is a fold over it.
//!
//! Bound: [`PROGRAMS_CACHED_MAX`] programs stay in memory; above it the one that was used the longest ago goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_event::envelope::Fact;
use nexa_event::fact::ClusterEvent;
use nexa_ports::store::{Append, AppendError, Guard, Stamp, Store, StoreError};
use nexa_ports::tool::{NoTool, Tools};
use nexa_types::{BlobHash, ModuleHash, StreamId, TenantId, Version};
use nexa_vm::module::{LoadError, Module};
use nexa_vm::vm::Program;

/// Programs that stay in memory.
pub const PROGRAMS_CACHED_MAX: usize = 256;
/// Facts that are read at once.
const PAGE: usize = 256;
/// How often a put is tried when other processes put at the same time.
const PUT_TRIES_MAX: usize = 16;

/// Why there is no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Nobody put it.
    #[error("there is no program {module}; put it first")]
    Unknown {
        /// The module asked for.
        module: ModuleHash,
    },
    /// It was put, and its bytes are gone.
    #[error("the bytes of program {module} are missing from the store")]
    Missing {
        /// The module asked for.
        module: ModuleHash,
    },
    /// Its bytes are no module that this build runs.
    #[error("program {module} cannot be loaded")]
    Refused {
        /// The module.
        module: ModuleHash,
        /// What the loader or the verifier said.
        source: LoadError,
    },
    /// A tool that it declares does not exist on this node.
    #[error("the tool `{tool}` cannot be used: {source}")]
    NoTool {
        /// The tool, as the program calls it.
        tool: String,
        /// What is missing.
        source: NoTool,
    },
    /// Too many others put programs at the same moment.
    #[error("the list of programs changes too fast; try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a tenant has put, as of a version of its cluster stream.
#[derive(Debug, Default)]
struct Catalog {
    version: Version,
    blobs: BTreeMap<ModuleHash, BlobHash>,
    names: BTreeMap<String, ModuleHash>,
}

impl Catalog {
    /// Reads what was put since.
    async fn catch_up(&mut self, store: &dyn Store, tenant: &TenantId) -> Result<(), StoreError> {
        loop {
            let page = store.read(StreamId::Cluster(tenant.clone()), self.version, PAGE).await?;
            let is_last = page.len() < PAGE;
            for recorded in page {
                self.version = recorded.envelope.header.version;
                if let Fact::Cluster(ClusterEvent::ProgramPut { module, blob, name }) = recorded.envelope.fact {
                    self.blobs.insert(module, blob);
                    self.names.insert(name, module);
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Puts the bytes of a verified module under a name, unless exactly that is stored.
    async fn put(
        &mut self,
        store: &dyn Store,
        tenant: &TenantId,
        module: ModuleHash,
        bytes: Vec<u8>,
        name: &str,
        stamp: Stamp,
    ) -> Result<(), ProgramError> {
        let mut stored = None;
        for _ in 0..PUT_TRIES_MAX {
            self.catch_up(store, tenant).await?;
            if self.names.get(name) == Some(&module)
                && let Some(blob) = self.blobs.get(&module)
                && store.blob(tenant.clone(), *blob).await?.is_some()
            {
                return Ok(());
            }
            let blob = match stored {
                Some(blob) => blob,
                None => *stored.insert(store.put_blob(tenant.clone(), bytes.clone()).await?),
            };
            let append = Append {
                stream: StreamId::Cluster(tenant.clone()),
                guard: Guard::Version,
                expected: self.version,
                stamp: stamp.clone(),
                facts: vec![Fact::Cluster(ClusterEvent::ProgramPut { module, blob, name: name.to_owned() })],
                row: None,
                takes: Vec::new(),
                posts: Vec::new(),
                births: Vec::new(),
                also: None,
            };
            match store.append(vec![append]).await.pop() {
                Some(Ok(_)) => return Ok(()),
                Some(Err(AppendError::Store(error))) => return Err(error.into()),
                // Another process put something: look again.
                Some(Err(_)) | None => {}
            }
        }
        Err(ProgramError::Contended)
    }
}

/// Puts a module under a name, without a node: reads the whole list first. Putting the same again writes nothing.
///
/// # Errors
/// [`ProgramError`]: the verifier refuses it, or the store failed. After an error nothing or all of it was stored.
pub async fn put(
    store: &dyn Store,
    tenant: &TenantId,
    module: &Module,
    name: &str,
    stamp: Stamp,
) -> Result<ModuleHash, ProgramError> {
    let bytes = module.encode();
    let hash = load(module.hash(), &bytes)?.hash();
    Catalog::default().put(store, tenant, hash, bytes, name, stamp).await?;
    Ok(hash)
}

fn load(module: ModuleHash, bytes: &[u8]) -> Result<Program, ProgramError> {
    Program::load(bytes).map_err(|source| ProgramError::Refused { module, source })
}

/// The programs that a node has loaded, and what its tenants have put.
pub(crate) struct Programs {
    store: Arc<dyn Store>,
    tools: Arc<dyn Tools>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// One a tenant that has put or run anything here. Who holds the lock puts or reads on; the others take turns.
    catalogs: HashMap<TenantId, Arc<tokio::sync::Mutex<Catalog>>>,
    programs: HashMap<(TenantId, ModuleHash), (u64, Arc<Program>)>,
    uses: u64,
}

impl Programs {
    pub(crate) fn new(store: Arc<dyn Store>, tools: Arc<dyn Tools>) -> Self {
        Self { store, tools, cache: Mutex::default() }
    }

    /// Whether every tool that a program declares exists here for a tenant.
    pub(crate) fn check_tools(&self, tenant: &TenantId, program: &Program) -> Result<(), ProgramError> {
        for tool in &program.module().tools {
            let found = self.tools.find(tenant, &tool.source, &tool.params);
            found.map_err(|source| ProgramError::NoTool { tool: tool.name.clone(), source })?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalog(&self, tenant: &TenantId) -> Arc<tokio::sync::Mutex<Catalog>> {
        self.lock().catalogs.entry(tenant.clone()).or_default().clone()
    }

    /// Puts a module under a name and keeps it loaded. Puts of one tenant take turns, so none of them loses to another.
    pub(crate) async fn put(
        &self,
        tenant: &TenantId,
        module: &Module,
        name: &str,
        stamp: Stamp,
    ) -> Result<Arc<Program>, ProgramError> {
        let bytes = module.encode();
        let program = Arc::new(load(module.hash(), &bytes)?);
        self.check_tools(tenant, &program)?;
        let catalog = self.catalog(tenant);
        catalog.lock().await.put(&*self.store, tenant, program.hash(), bytes, name, stamp).await?;
        self.lock().keep(tenant, program.clone());
        Ok(program)
    }

    /// A program by its hash, from memory or from the store.
    pub(crate) async fn get(&self, tenant: &TenantId, module: ModuleHash) -> Result<Arc<Program>, ProgramError> {
        if let Some(program) = self.lock().find(tenant, module) {
            return Ok(program);
        }
        let blob = self.blob_of(tenant, module).await?;
        let bytes = self.store.blob(tenant.clone(), blob).await?.ok_or(ProgramError::Missing { module })?;
        let program = Arc::new(load(module, &bytes)?);
        self.lock().keep(tenant, program.clone());
        Ok(program)
    }

    async fn blob_of(&self, tenant: &TenantId, module: ModuleHash) -> Result<BlobHash, ProgramError> {
        let catalog = self.catalog(tenant);
        let mut catalog = catalog.lock().await;
        if !catalog.blobs.contains_key(&module) {
            catalog.catch_up(&*self.store, tenant).await?;
        }
        catalog.blobs.get(&module).copied().ok_or(ProgramError::Unknown { module })
    }
}

impl Cache {
    fn find(&mut self, tenant: &TenantId, module: ModuleHash) -> Option<Arc<Program>> {
        self.uses += 1;
        let (used, program) = self.programs.get_mut(&(tenant.clone(), module))?;
        *used = self.uses;
        Some(program.clone())
    }

    fn keep(&mut self, tenant: &TenantId, program: Arc<Program>) {
        self.uses += 1;
        self.programs.insert((tenant.clone(), program.hash()), (self.uses, program));
        if self.programs.len() > PROGRAMS_CACHED_MAX
            && let Some(oldest) = self.programs.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            self.programs.remove(&oldest);
        }
    }
}
