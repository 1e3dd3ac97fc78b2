//! What the redirecting role is told by its settings.

use std::{path::PathBuf, time::Duration};

use daemon::settings::Settings;

use super::{
    RedirectError,
    enrol::Policy,
    install::{PLUGIN, Places},
    rules::RuleSet,
    source::Source,
    supervise::Program,
};
use crate::config::{self, name};

/// What the role needs to be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose pods.
    pub node: String,
    /// The pod that this is, where it is one.
    pub pod: String,
    /// The ZDS socket.
    pub zds: PathBuf,
    /// The private socket.
    pub private: PathBuf,
    /// The socket of the CNI plugin.
    pub cni: PathBuf,
    /// Where pods are known from.
    pub source: Source,
    /// How pods are enrolled.
    pub policy: Policy,
    /// What rules do where a pod does not say.
    pub defaults: RuleSet,
    /// The proxy to start; `None` where it is started otherwise.
    pub proxy: Option<Program>,
    /// Whether rules are taken out at the end.
    pub clean_up: bool,
    /// Where the CNI plugin is to be put; `None`: somebody else does that.
    pub plugin: Option<Places>,
    /// Namespace and name of the DaemonSet that this is of: once that is gone, everything of ours leaves the node.
    pub daemon_set: (String, String),
    /// Whether another one follows by itself on one that is told to end, and one whose place is taken is to stay until it is told
    /// to end, as in a DaemonSet.
    pub lingers: bool,
}

impl Options {
    /// Options from the settings.
    ///
    /// # Errors
    /// When one is missing or cannot be read.
    pub fn from_settings(settings: &Settings) -> Result<Self, RedirectError> {
        let required = |name: &'static str, why: &'static str| match settings.text(name) {
            "" => Err(RedirectError::Missing(name, why)),
            text => Ok(text.to_owned()),
        };
        let foreign_proxy = settings.switch(name::FOREIGN_PROXY)?;
        let [zds, private, cni] = config::sockets(settings);
        let start = settings.switch(name::START_PROXY)? && !foreign_proxy;
        Ok(Self {
            node: required(name::NODE_NAME, "give the name of this node with --node")?,
            pod: settings.text(name::POD_NAME).to_owned(),
            zds,
            private,
            cni,
            source: match settings.text(name::CONFIG_SOURCE) {
                "kubernetes" => Source::Kubernetes {
                    kubeconfig: Some(settings.text(name::KUBECONFIG))
                        .filter(|path| !path.is_empty())
                        .map(PathBuf::from),
                },
                _ => Source::Files {
                    manifests: settings.list(name::SOURCE).into_iter().map(PathBuf::from).collect(),
                    objects: required(name::OBJECTS, "give the folder of the mesh's objects with --objects")?
                        .into(),
                },
            },
            policy: Policy {
                nft: settings.text(name::NFT).to_owned(),
                foreign_proxy,
                leave_grace: settings.duration(name::LEAVE_GRACE)?,
            },
            defaults: RuleSet {
                dns: settings.switch(name::DNS_CAPTURE)?,
                drop_uncarried: settings.switch(name::DROP_UNCARRIED)?,
                ..RuleSet::default()
            },
            proxy: if start { Some(proxy_program(settings)?) } else { None },
            clean_up: settings.switch(name::CLEANUP)?,
            plugin: places(settings)?,
            daemon_set: (
                settings.text(name::POD_NAMESPACE).to_owned(),
                settings.text(name::DAEMON_SET).to_owned(),
            ),
            lingers: settings.text(name::CONFIG_SOURCE) == "kubernetes",
        })
    }
}

/// On Kubernetes, unless somebody else installs the plugin.
fn places(settings: &Settings) -> Result<Option<Places>, RedirectError> {
    let is_cluster = settings.text(name::CONFIG_SOURCE) == "kubernetes";
    if !is_cluster || !settings.switch(name::INSTALL_CNI)? {
        return Ok(None);
    }
    let program =
        std::env::current_exe().map_err(RedirectError::system("cannot tell this program's path"))?;
    let mut exempt = settings.list(name::CNI_EXEMPT);
    exempt.push(settings.text(name::POD_NAMESPACE).to_owned());
    let [_, _, socket] = config::sockets(settings);
    Ok(Some(Places {
        binary: program.with_file_name(PLUGIN),
        bin: settings.text(name::CNI_BIN_DIR).into(),
        configurations: settings.text(name::CNI_CONF_DIR).into(),
        socket,
        exempt,
    }))
}

/// This binary in its other role, with the same settings.
fn proxy_program(settings: &Settings) -> Result<Program, RedirectError> {
    let path = std::env::current_exe().map_err(RedirectError::system("cannot tell this program's path"))?;
    let env = config::environment(settings);
    Ok(Program {
        path,
        args: vec!["proxy".into()],
        env: env.into_iter().map(|(key, value)| (key, value.into())).collect(),
        // What is left then is reset, which takes a moment.
        drain: settings.duration(name::DRAIN)? + Duration::from_secs(2),
    })
}
