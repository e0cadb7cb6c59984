//! Roles, and sets of them. Plain data.

/// What kind of caller someone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Has shown no credential where one is expected.
    Anonymous,
    /// May look.
    Viewer,
    /// May do what daily work needs.
    Operator,
    /// May do everything.
    Admin,
    /// Another component of the same installation.
    Component,
    /// The program that stands for one machine, and speaks only for it.
    Agent,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Anonymous,
        Self::Viewer,
        Self::Operator,
        Self::Admin,
        Self::Component,
        Self::Agent,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Component => "component",
            Self::Agent => "agent",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of roles. Admins are in every set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Admins only.
    pub const ADMIN: Self = Self(Role::Admin.bit());
    /// Who changes things by hand.
    pub const OPERATE: Self = Self::ADMIN.and(Role::Operator);
    /// Who looks: people in any role, and components.
    pub const READ: Self = Self::OPERATE.and(Role::Viewer).and(Role::Component);
    /// Other components.
    pub const COMPONENT: Self = Self::ADMIN.and(Role::Component);
    /// Agents.
    pub const AGENT: Self = Self::ADMIN.and(Role::Agent);
    /// Everyone who has shown who they are.
    pub const KNOWN: Self = Self::READ.and(Role::Agent);
    /// Everyone; the method checks a proof of its own.
    pub const ANYONE: Self = Self::KNOWN.and(Role::Anonymous);

    /// The set with `role` in it.
    #[must_use]
    pub const fn and(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// Whether `role` is in the set.
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
}
