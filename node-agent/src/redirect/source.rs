//! Where the redirecting role learns which pods its node has, where it finds their network namespaces, and where it notes
//! what it did: a folder of manifests, or a cluster. Nothing else knows which of the two it is.

mod cluster;

use std::{io, path::PathBuf, sync::Arc};

use daemon::tasks::Tasks;
use kube::Client;
use manifest::{Folder, State, Watch};
use tokio::sync::watch;

use super::{
    RedirectError,
    catalog::Catalog,
    notes::{ClusterNotes, Notes},
    probes::Probes,
    whereabouts::Whereabouts,
};

/// Who connects to the API server, for its log.
const USER_AGENT: &str = concat!("lateen-node-agent/", env!("CARGO_PKG_VERSION"));

/// The source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A mesh without Kubernetes.
    Files {
        /// Manifests.
        manifests: Vec<PathBuf>,
        /// Folder of the mesh's own objects.
        objects: PathBuf,
    },
    /// The API server of the cluster that this runs in.
    Kubernetes {
        /// File with its address and our credentials; none: those of the pod that this runs in.
        kubeconfig: Option<PathBuf>,
    },
}

/// A source that is being read, until dropped.
pub(super) struct Fed {
    /// News of pods.
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) notes: Notes,
    pub(super) whereabouts: Whereabouts,
    pub(super) probes: Option<Probes>,
    /// The API server, if there is one.
    pub(super) client: Option<Client>,
    _watch: Option<Watch>,
    /// What follows a cluster; where a folder is followed no more, the news of pods end.
    pub(super) tasks: Tasks,
}

impl Source {
    /// Begins to read; returns once everything that is there is known.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub(super) async fn read(&self, node: &str, nft: &str) -> Result<Fed, RedirectError> {
        match self {
            Self::Files { manifests, objects } => watch_files(node, manifests, objects).await,
            Self::Kubernetes { kubeconfig } => {
                let client = connect(kubeconfig.as_deref()).await?;
                watch_cluster(node, nft, client).await
            }
        }
    }
}

async fn watch_files(node: &str, manifests: &[PathBuf], objects: &PathBuf) -> Result<Fed, RedirectError> {
    let mut catalog = Catalog::new(node);
    let (sender, mut catalogs) = watch::channel(Arc::default());
    let folder = Folder::new(manifests.to_vec()).with_state(objects.clone());
    let watch = Watch::start(folder, move |batch| {
        catalog.apply(&batch);
        sender.send(Arc::new(catalog.clone())).is_ok()
    })
    .map_err(RedirectError::system("cannot watch the manifests"))?;
    // The first batch is everything that is there, also if that is nothing.
    first(&mut catalogs).await?;
    Ok(Fed {
        catalog: catalogs,
        notes: Notes::Folder(State::at(objects)),
        whereabouts: Whereabouts::Annotated,
        probes: None,
        client: None,
        _watch: Some(watch),
        tasks: Tasks::default(),
    })
}

async fn watch_cluster(node: &str, nft: &str, client: Client) -> Result<Fed, RedirectError> {
    let (sender, mut catalogs) = watch::channel(Arc::default());
    let tasks = Tasks::default();
    tasks.spawn_lasting("pods of this node", cluster::run(client.clone(), node.to_owned(), sender));
    first(&mut catalogs).await?;
    let probes = Probes::new(nft).map_err(RedirectError::system("cannot tell the node's own network"))?;
    Ok(Fed {
        catalog: catalogs,
        notes: Notes::Cluster(ClusterNotes::new(client.clone())),
        whereabouts: Whereabouts::Processes("/proc".into()),
        probes: Some(probes),
        client: Some(client),
        _watch: None,
        tasks,
    })
}

async fn first(catalogs: &mut watch::Receiver<Arc<Catalog>>) -> Result<(), RedirectError> {
    let ended = |_| io::Error::other("the watch has ended");
    catalogs.changed().await.map_err(ended).map_err(RedirectError::system("cannot learn of this node's pods"))
}

async fn connect(kubeconfig: Option<&std::path::Path>) -> Result<Client, RedirectError> {
    use kube::config::{Config, KubeConfigOptions, Kubeconfig};
    let failed = |error: &dyn std::error::Error| RedirectError::Cluster(error.to_string());
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))?
        }
        None => Config::incluster().map_err(|error| failed(&error))?,
    };
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    Client::try_from(config).map_err(|error| failed(&error))
}
