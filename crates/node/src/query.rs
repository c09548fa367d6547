//! Search: a group of requests in, packed answers out.
//!
//! Requests for the same incarnation and scope are answered on one view with one
//! pass over the blocks. Ids and attributes come back as one buffer each with end
//! offsets, so that the RESP encoder copies slices and no string is made.

use napi::bindgen_prelude::{BigInt, Float64Array, Uint8Array, Uint32Array};
use napi_derive::napi;
use vexlake_lsm::record::{parse_vector_text, parse_vector_values};
use vexlake_lsm::{Filter, Hit, Scope, Search, check_vector};

use crate::Lake;
use crate::append::offset;
use crate::error::{Failure, Result, invalid};

#[napi(object)]
pub struct VectorArgument {
    /// `f32`, `text`, `values` or `element`.
    pub kind: String,
    /// f32: little-endian floats; text: `[0.1, …]`.
    pub bytes: Option<Uint8Array>,
    /// values: the frame, and pairs of (start, length) into it.
    pub frame: Option<Uint8Array>,
    pub spans: Option<Uint32Array>,
    /// element: its key.
    pub id: Option<Uint8Array>,
}

#[napi(object)]
pub struct SearchRequest {
    /// The incarnation; empty with k = 0: one that is not there yet.
    pub collection: String,
    pub vector: VectorArgument,
    pub k: u32,
    /// `fresh`, `snapshot` or `at`.
    pub scope: String,
    pub version: Option<BigInt>,
    pub with_attrs: bool,
    pub score_min: Option<f64>,
    /// EF; the default where there is none.
    pub effort: Option<u32>,
    /// Whether to compare every row.
    pub truth: Option<bool>,
    /// What attributes of results must satisfy.
    pub filter: Option<String>,
    /// Whether to search alone and with times.
    pub explain: Option<bool>,
}

#[napi(object)]
pub struct ReplyError {
    pub code: String,
    pub message: String,
}

/// What the search took: up to waves of this request, the rest of its whole group.
#[napi(object)]
pub struct SearchCost {
    pub segments_listed: f64,
    pub segments_exact: f64,
    pub segments_pruned: f64,
    pub rows_passed: f64,
    pub centroids: f64,
    pub lists: f64,
    pub rows_scanned: f64,
    pub memtable_rows: f64,
    pub rows_reranked: f64,
    pub waves: f64,
    pub rounds: f64,
    pub pages_held: f64,
    pub pages_read: f64,
    pub requests: f64,
    pub bytes_read: f64,
}

/// Microseconds.
#[napi(object)]
pub struct SearchStages {
    pub feed: f64,
    pub filter: f64,
    pub lists: f64,
    pub codes: f64,
    pub rerank: f64,
    pub exact: f64,
    pub names: f64,
    pub total: f64,
}

#[napi(object)]
pub struct SearchReply {
    pub ids: Uint8Array,
    pub id_ends: Uint32Array,
    pub scores: Float64Array,
    pub distances: Float64Array,
    pub attrs: Option<Uint8Array>,
    pub attr_ends: Option<Uint32Array>,
    pub version: BigInt,
    pub rows_scanned: f64,
    pub cost: Option<SearchCost>,
    pub stages: Option<SearchStages>,
    pub error: Option<ReplyError>,
}

/// What one call of the engine answers: (collection, scope, searches by request).
type Group<'a> = (&'a str, Scope, Vec<(usize, Search)>);

/// Reads a scope word.
pub fn scope(word: &str, version: Option<&BigInt>) -> Result<Scope> {
    match (word, version) {
        ("fresh", _) => Ok(Scope::Fresh),
        ("snapshot", _) => Ok(Scope::Snapshot),
        ("at", Some(version)) => Ok(Scope::At(offset("version", version)?)),
        _ => Err(invalid(format!(
            "scope is {word:?}, allowed are fresh, snapshot, and at with a version"
        ))),
    }
}

impl Lake {
    pub(crate) async fn search_all(&self, requests: Vec<SearchRequest>) -> Vec<SearchReply> {
        let mut replies: Vec<Option<SearchReply>> = requests.iter().map(|_| None).collect();
        // Pipelined requests share a collection and a scope: a list finds their group at once.
        let mut groups: Vec<Group> = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            match self.prepare(request).await {
                // k = 0 asks only whether the vector is acceptable.
                Ok(_) if request.k == 0 => replies[index] = Some(pack(&[], false, 0, 0)),
                Ok((scope, search)) if request.explain == Some(true) => {
                    let explained = self.explain(&request.collection, scope, &search).await;
                    replies[index] = Some(reply_of(&explained, 0, &search));
                }
                Ok((scope, search)) => {
                    let name = request.collection.as_str();
                    match groups
                        .iter_mut()
                        .find(|(c, s, _)| (*c, *s) == (name, scope))
                    {
                        Some((.., members)) => members.push((index, search)),
                        None => groups.push((name, scope, vec![(index, search)])),
                    }
                }
                Err(failure) => replies[index] = Some(refused(&failure)),
            }
        }
        for (collection, scope, members) in groups {
            let (indexes, searches): (Vec<usize>, Vec<Search>) = members.into_iter().unzip();
            let answered = self.answer(collection, scope, &searches).await;
            for (position, index) in indexes.into_iter().enumerate() {
                replies[index] = Some(reply_of(&answered, position, &searches[position]));
            }
        }
        replies.into_iter().flatten().collect()
    }

    async fn answer(
        &self,
        collection: &str,
        scope: Scope,
        searches: &[Search],
    ) -> Result<vexlake_lsm::Answers> {
        Ok(self
            .incarnation(collection)
            .await?
            .search(searches, scope)
            .await?)
    }

    async fn explain(
        &self,
        collection: &str,
        scope: Scope,
        search: &Search,
    ) -> Result<vexlake_lsm::Answers> {
        Ok(self
            .incarnation(collection)
            .await?
            .explain(search, scope)
            .await?)
    }

    /// One request as the engine takes it. Checked alone, so that a bad request
    /// cannot spoil the group it was pipelined with.
    async fn prepare(&self, request: &SearchRequest) -> Result<(Scope, Search)> {
        let scope = scope(&request.scope, request.version.as_ref())?;
        let search = Search {
            vector: self.vector(request, scope).await?,
            k: (request.k as usize).max(1),
            score_min: request.score_min.map(|score| score as f32),
            with_attrs: request.with_attrs,
            effort: request.effort,
            truth: request.truth.unwrap_or(false),
            filter: request.filter.as_deref().map(parse_filter).transpose()?,
        };
        if request.k == 0 && request.collection.is_empty() {
            // The first vector of a collection that is not there yet: it sets the dimension.
            check_vector(&search.vector, search.vector.len())?;
        } else {
            self.incarnation(&request.collection)
                .await?
                .check(&search)?;
        }
        Ok((scope, search))
    }

    async fn vector(&self, request: &SearchRequest, scope: Scope) -> Result<Vec<f32>> {
        let VectorArgument {
            kind,
            bytes,
            frame,
            spans,
            id,
        } = &request.vector;
        let missing = |field: &str| invalid(format!("vector of kind {kind:?} needs {field}"));
        let vector = match kind.as_str() {
            "f32" => {
                let (floats, rest) = bytes
                    .as_ref()
                    .ok_or_else(|| missing("bytes"))?
                    .as_chunks::<4>();
                if !rest.is_empty() {
                    let length = 4 * floats.len() + rest.len();
                    return Err(invalid(format!(
                        "vector has {length} bytes, not a multiple of 4"
                    )));
                }
                Ok(floats
                    .iter()
                    .map(|float| f32::from_le_bytes(*float))
                    .collect())
            }
            "text" => {
                let bytes = bytes.as_ref().ok_or_else(|| missing("bytes"))?;
                let text = std::str::from_utf8(bytes)
                    .map_err(|e| invalid(format!("vector is not UTF-8: {e}")))?;
                parse_vector_text(text)
            }
            "values" => {
                let frame = frame.as_ref().ok_or_else(|| missing("frame"))?;
                parse_vector_values(
                    frame,
                    spans.as_ref().ok_or_else(|| missing("spans"))?.as_ref(),
                )
            }
            "element" => {
                let id = id.as_ref().ok_or_else(|| missing("id"))?;
                let id = std::str::from_utf8(id)
                    .map_err(|e| invalid(format!("element is not UTF-8: {e}")))?;
                let incarnation = self.incarnation(&request.collection).await?;
                Ok(incarnation.vector_of(id, scope).await?)
            }
            other => {
                return Err(invalid(format!(
                    "vector kind is {other:?}, allowed are f32, text, values, element"
                )));
            }
        };
        vector.map_err(|e| invalid(e.to_string()))
    }
}

fn parse_filter(text: &str) -> Result<Filter> {
    Filter::parse(text)
        .map_err(|error| invalid(format!("syntax error in FILTER expression: {error}")))
}

fn reply_of(
    answered: &Result<vexlake_lsm::Answers>,
    position: usize,
    search: &Search,
) -> SearchReply {
    match answered {
        Ok(answers) => {
            let (hits, rows) = (&answers.hits[position], answers.rows_scanned);
            SearchReply {
                cost: Some(cost_of(answers, position)),
                stages: answers.stages.as_ref().map(stages_of),
                ..pack(hits, search.with_attrs, answers.version, rows)
            }
        }
        Err(failure) => refused(failure),
    }
}

fn stages_of(stages: &vexlake_lsm::Stages) -> SearchStages {
    SearchStages {
        feed: stages.feed as f64,
        filter: stages.filter as f64,
        lists: stages.lists as f64,
        codes: stages.codes as f64,
        rerank: stages.rerank as f64,
        exact: stages.exact as f64,
        names: stages.names as f64,
        total: stages.total as f64,
    }
}

fn cost_of(answers: &vexlake_lsm::Answers, position: usize) -> SearchCost {
    let (cost, reads) = (&answers.costs[position], &answers.reads);
    SearchCost {
        segments_listed: cost.segments_listed as f64,
        segments_exact: cost.segments_exact as f64,
        segments_pruned: cost.segments_pruned as f64,
        rows_passed: cost.rows_passed as f64,
        centroids: cost.centroids as f64,
        lists: cost.lists as f64,
        rows_scanned: cost.rows_scanned as f64,
        memtable_rows: cost.memtable_rows as f64,
        rows_reranked: cost.rows_reranked as f64,
        waves: cost.waves as f64,
        rounds: answers.rounds as f64,
        pages_held: reads.held as f64,
        pages_read: reads.loaded as f64,
        requests: reads.requests as f64,
        bytes_read: reads.bytes as f64,
    }
}

fn pack(hits: &[Hit], with_attrs: bool, version: u64, rows_scanned: u64) -> SearchReply {
    let (mut ids, mut id_ends) = (Vec::new(), Vec::with_capacity(hits.len()));
    let (mut attrs, mut attr_ends) = (Vec::new(), Vec::new());
    for hit in hits {
        ids.extend_from_slice(hit.id.as_bytes());
        id_ends.push(ids.len() as u32);
        if with_attrs {
            attrs.extend_from_slice(hit.attrs.as_deref().unwrap_or_default().as_bytes());
            attr_ends.push(attrs.len() as u32);
        }
    }
    let scores: Vec<f64> = hits.iter().map(|hit| f64::from(hit.score)).collect();
    let distances: Vec<f64> = hits.iter().map(|hit| f64::from(hit.distance)).collect();
    SearchReply {
        ids: ids.into(),
        id_ends: id_ends.into(),
        scores: scores.into(),
        distances: distances.into(),
        attrs: with_attrs.then(|| attrs.into()),
        attr_ends: with_attrs.then(|| attr_ends.into()),
        version: version.into(),
        rows_scanned: rows_scanned as f64,
        cost: None,
        stages: None,
        error: None,
    }
}

fn refused(failure: &Failure) -> SearchReply {
    let error = ReplyError {
        code: failure.code.to_owned(),
        message: failure.message.clone(),
    };
    SearchReply {
        error: Some(error),
        ..pack(&[], false, 0, 0)
    }
}
