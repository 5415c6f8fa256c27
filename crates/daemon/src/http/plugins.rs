//! Plugins: which there are, and their pages.

use crate::access::Access;
use crate::http::Shared;
use crate::http::page;
use crate::http::query::{Path, Query};
use crate::plugins::{Folder, Page, SESSION, page as read_page};
use crate::refusal::{Answer, Refusal};
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::hooks::Plugin;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Own files only, no code inside of pages, in nobody's frame.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The routes of the API.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list))
}

/// The routes of the pages, which are no part of the API.
pub fn pages() -> Router<Shared> {
    Router::new()
        .route("/_plugin/{plugin}", get(bare))
        .route("/_plugin/{plugin}/", get(index))
        .route("/_plugin/{plugin}/{*path}", get(below))
}

/// Parameters of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Items of a page, at most 1000.
    limit: Option<usize>,
    /// Of the page before.
    cursor: Option<String>,
}

/// All plugins, also those that are skipped.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", params(ListQuery),
    responses((status = 200, body = Vec<Plugin>), (status = "default", body = ErrorBody)))]
pub async fn list(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Query(query): Query<ListQuery>,
) -> Answer<(HeaderMap, Json<Vec<Plugin>>)> {
    if !access.may_read_all() {
        return Err(Refusal::new(
            Code::Forbidden,
            "this credential is not for all jobs",
        ));
    }
    let limit = page::limit(query.limit, page::USUAL)?;
    let mut plugins: Vec<Plugin> = app.plugins.list().iter().map(shown).collect();
    let next = page::cut(
        &mut plugins,
        |plugin| plugin.name.clone(),
        limit,
        query.cursor.as_deref(),
    );
    let parameters = [("limit", query.limit.map(|limit| limit.to_string()))];
    Ok((page::link("/v1/plugins", &parameters, next), Json(plugins)))
}

fn shown(folder: &Folder) -> Plugin {
    Plugin {
        name: folder.name.clone(),
        version: folder.version().map(str::to_owned),
        description: folder.description().map(str::to_owned),
        requires: folder.requires().to_vec(),
        site: folder.site.then(|| format!("/_plugin/{}/", folder.name)),
        job: folder.runs().then(|| format!("{SESSION}.{}", folder.name)),
        state: match folder.problem {
            None => "active".to_owned(),
            Some(_) => "skipped".to_owned(),
        },
        problem: folder.problem.clone(),
    }
}

async fn bare(State(app): State<Shared>, Path(plugin): Path<String>) -> Answer<Response> {
    match read(&app, &plugin, "").await? {
        Page::Missing => Err(missing()),
        _ => Ok(Redirect::permanent(&format!("/_plugin/{plugin}/")).into_response()),
    }
}

async fn index(State(app): State<Shared>, Path(plugin): Path<String>) -> Answer<Response> {
    serve(&app, &plugin, "").await
}

async fn below(State(app): State<Shared>, Path((plugin, path)): Path<(String, String)>) -> Answer<Response> {
    serve(&app, &plugin, &path).await
}

async fn serve(app: &Shared, plugin: &str, path: &str) -> Answer<Response> {
    match read(app, plugin, path).await? {
        Page::Missing => Err(missing()),
        Page::Folder => {
            let escaped: Vec<String> = path.split('/').map(gaffer_api::routes::escape).collect();
            let place = format!("/_plugin/{plugin}/{}/", escaped.join("/"));
            Ok(Redirect::permanent(&place).into_response())
        }
        Page::File { kind, bytes } => Ok((
            [
                (CONTENT_TYPE, kind),
                (CONTENT_SECURITY_POLICY, POLICY),
                (CACHE_CONTROL, "no-cache"),
            ],
            bytes,
        )
            .into_response()),
    }
}

/// Files are on a disk: read where waiting disturbs nobody.
async fn read(app: &Shared, plugin: &str, path: &str) -> Answer<Page> {
    let Some(dir) = app.plugins.dir().map(ToOwned::to_owned) else {
        return Err(missing());
    };
    let (plugin, path) = (plugin.to_owned(), path.to_owned());
    let read = tokio::task::spawn_blocking(move || read_page(&dir, &plugin, &path)).await;
    read.map_err(|_| Refusal::new(Code::Internal, "the page could not be read"))
}

fn missing() -> Refusal {
    Refusal::new(Code::RouteNotFound, "no plugin has a page there")
        .hint("/v1/plugins lists plugins and their pages")
}
