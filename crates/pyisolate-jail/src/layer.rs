//! The layers of confinement there are: their names, what each one means, and how a host gets it.

use std::fmt;

macro_rules! names {
    ($(#[$meta:meta])* pub enum $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$doc])* $variant,)+ }

        impl $type {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in reports and messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The value of a name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.as_str())
            }
        }
    };
}

names! {
    /// How far a layer is enforced.
    pub enum Status {
        /// In force, read back from the kernel.
        Enforced = "enforced",
        /// In force as far as this host can; the detail says what is lacking.
        Partial = "partial",
        /// Not in force; the detail says why.
        Missing = "missing",
    }
}

names! {
    /// One layer of confinement.
    pub enum LayerName {
        /// A user namespace of its own.
        UserNamespace = "user-namespace",
        /// A pid namespace of its own.
        PidNamespace = "pid-namespace",
        /// A mount namespace of its own.
        MountNamespace = "mount-namespace",
        /// An ipc namespace of its own.
        IpcNamespace = "ipc-namespace",
        /// A uts namespace of its own.
        UtsNamespace = "uts-namespace",
        /// A network namespace without any way out.
        NetworkNamespace = "network-namespace",
        /// A small read-only file tree.
        Root = "root",
        /// No capability in any set.
        Capabilities = "capabilities",
        /// Nothing to gain by executing a program.
        NoNewPrivileges = "no-new-privileges",
        /// A Landlock domain.
        Landlock = "landlock",
        /// System call allow-lists.
        Seccomp = "seccomp",
        /// Resource limits of the process.
        Rlimits = "rlimits",
        /// Nothing inherited but the channel.
        Descriptors = "descriptors",
        /// No environment variable of the host's.
        Environment = "environment",
        /// Not traceable, no core dumps, dies with its parent.
        Process = "process",
        /// A machine of the guest's own. The supervisor's to fill in: other backends have none.
        VirtualMachine = "virtual-machine",
        /// A control group. The supervisor's to fill in: the cell does not see it.
        Cgroup = "cgroup",
        /// The clock and randomness, which no kernel walls off. The supervisor's to fill in.
        Clock = "clock",
    }
}

impl LayerName {
    /// What it means that the layer holds, in one sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::UserNamespace => "what the guest is called inside owns nothing outside",
            Self::PidNamespace => "the guest can neither see nor signal another process",
            Self::MountNamespace => "the guest cannot change what others see mounted",
            Self::IpcNamespace => "the guest shares no System V or POSIX queue with others",
            Self::UtsNamespace => "the guest sees a host name that says nothing",
            Self::NetworkNamespace => "there is no interface by which a packet could leave",
            Self::Root => "the only files are the interpreter's, its packages', to read",
            Self::Capabilities => "the guest has none of root's powers, whoever it runs as",
            Self::NoNewPrivileges => "no program that it could execute would add a right",
            Self::Landlock => "a second wall around files and sockets, should the root fail",
            Self::Seccomp => "most of the kernel's calls cannot be reached at all",
            Self::Rlimits => "memory, descriptors, threads and CPU time end where they were set",
            Self::Descriptors => "nothing that the host has open is open in the cell",
            Self::Environment => "no variable of the host's can be read",
            Self::Process => "others cannot look into the cell, and it dies with its parent",
            Self::VirtualMachine => {
                "the guest has a kernel of its own, and not the host's to attack"
            }
            Self::Cgroup => "the kernel bounds the memory, threads and CPU of the whole cell",
            Self::Clock => "time is a right that can be withheld",
        }
    }

    /// How a host that lacks the layer gets it. `None` where no host can have it.
    #[must_use]
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::UserNamespace
            | Self::PidNamespace
            | Self::MountNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace
            | Self::NetworkNamespace
            | Self::Root => Some(
                "permit user namespaces: sysctl user.max_user_namespaces above 0, \
                 kernel.unprivileged_userns_clone=1 (Debian), \
                 kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with \
                 `userns` (Ubuntu), and a container's seccomp profile that lets clone and mount \
                 through; or run as root",
            ),
            Self::Landlock => {
                Some("boot a kernel of 5.13 or newer with `landlock` in its lsm= list")
            }
            Self::Cgroup => Some(
                "with backend=\"process\", run the host in a delegated group: `systemd-run --user --scope \
                 -p Delegate=yes COMMAND`, or Delegate=yes and DelegateSubgroup=host in its service; or as root",
            ),
            Self::VirtualMachine => {
                Some("use backend=\"microvm\" on a host with KVM: see docs/microvm.md")
            }
            Self::Rlimits => Some("use backend=\"process\""),
            Self::Process => Some("use backend=\"process\" or a stronger one"),
            Self::Environment => Some("use backend=\"process\""),
            Self::Seccomp => Some("use a kernel with CONFIG_SECCOMP_FILTER"),
            Self::Capabilities | Self::NoNewPrivileges | Self::Descriptors => {
                Some("report it as a fault: every host has it")
            }
            Self::Clock => None,
        }
    }
}
