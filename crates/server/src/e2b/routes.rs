//! The table of this face's routes: what is served and what is listed are the same thing.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use crate::state::App;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Who has a valid API key.
    Key,
    /// Who has the token of what the path names; handlers check it.
    Token,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub access: Access,
}

/// The two halves of the face: with and without a key.
#[derive(Default)]
pub(super) struct Routers {
    pub(super) keyed: Router<App>,
    pub(super) public: Router<App>,
}

/// Collects routes.
#[derive(Default)]
pub(super) struct Routes {
    routers: Routers,
    table: Vec<Route>,
}

macro_rules! token {
    ($($name:ident = $method:literal, $filter:ident;)*) => {$(
        pub(super) fn $name<H, T>(self, path: &'static str, handler: H) -> Self
        where
            H: Handler<T, App>,
            T: 'static,
        {
            self.open($method, MethodFilter::$filter, path, handler, Access::Token)
        }
    )*};
}

macro_rules! keyed {
    ($($name:ident = $method:literal, $filter:ident;)*) => {$(
        pub(super) fn $name<H, T>(self, path: &'static str, handler: H) -> Self
        where
            H: Handler<T, App>,
            T: 'static,
        {
            self.keyed($method, MethodFilter::$filter, path, handler)
        }
    )*};
}

impl Routes {
    keyed! {
        get = "GET", GET;
        post = "POST", POST;
        put = "PUT", PUT;
        patch = "PATCH", PATCH;
        delete = "DELETE", DELETE;
    }

    token! {
        token_get = "GET", GET;
        token_post = "POST", POST;
        token_put = "PUT", PUT;
        token_patch = "PATCH", PATCH;
        token_delete = "DELETE", DELETE;
    }

    fn keyed<H, T>(
        mut self,
        method: &'static str,
        filter: MethodFilter,
        path: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.routers.keyed = self.routers.keyed.route(path, on(filter, handler));
        self.list(method, path, Access::Key)
    }

    pub(super) fn public_get<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.open("GET", MethodFilter::GET, path, handler, Access::Public)
    }

    pub(super) fn public_put<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.open("PUT", MethodFilter::PUT, path, handler, Access::Public)
    }

    fn open<H, T>(
        mut self,
        method: &'static str,
        filter: MethodFilter,
        path: &'static str,
        handler: H,
        access: Access,
    ) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.routers.public = self.routers.public.route(path, on(filter, handler));
        self.list(method, path, access)
    }

    fn list(mut self, method: &'static str, path: &'static str, access: Access) -> Self {
        self.table.push(Route {
            method,
            path,
            access,
        });
        self
    }

    pub(super) fn into_parts(self) -> (Routers, Vec<Route>) {
        (self.routers, self.table)
    }
}
