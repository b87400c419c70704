-- Five kinds of message of a code review tool, and where they are sent.
--
--     export CODE_REVIEW_URL=https://reviews.example.org/api
--     export CODE_REVIEW_TOKEN=...          # log out: unset it
--     waybill --config examples/code-review.lua drain
--
-- Without a token nothing is sent: the drain reports not-ready.

local base = env("CODE_REVIEW_URL", "https://code-review.invalid"):gsub("/+$", "")
local token = env("CODE_REVIEW_TOKEN", false)

ready = function()
  return token ~= nil, "not logged in: CODE_REVIEW_TOKEN is not set"
end

-- What all five have in common.
local function review(kind, path, fields)
  fields = fields or {}
  fields.url = base .. path
  fields.headers = token and { Authorization = "Bearer " .. token } or nil
  route(kind)(fields)
end

review("trajectory", "/reviews/{pr_review_id}/trajectory", { body = "steps" })
review("review_metrics", "/reviews/{review_id}/metrics", { body = "req" })
review("mcp_query", "/dashboard/mcp-query")
review("imported_reviews", "/reviews/import")

-- At least one entry with something in it.
local function any_filled(list)
  if type(list) ~= "table" then return false end
  for _, entry in ipairs(list) do
    if entry ~= null and tostring(entry):find("%S") then return true end
  end
  return false
end

-- A 200 may still be a refusal. A field that the server left out is null.
review("accepted_edit", "/accepted-edits", {
  response = function(reply, msg)
    local answer = type(reply.json) == "table" and reply.json or {}
    if answer.acceptance_recorded == false then
      return "rejected", answer.error or "the edit was not recorded"
    end

    local rules = type(msg.payload) == "table" and any_filled(msg.payload.rule_ids)
    local workspace = answer.team_id ~= nil
    local unlinked = rules and answer.observations_inserted == 0
    tally "uploaded"
    if not workspace then tally "missing_team_workspace" end
    if not rules then tally "missing_rule_ids" end
    if unlinked then tally "unlinked_rule_observations" end
    if workspace and rules and not unlinked then tally "launch_grade" end
  end,
})
