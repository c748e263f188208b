--[[
trainmaster's part of the submission, at the client: what a job with `--tm-spares` needs so that losing a node does not
end it, and `--tm-maintenance` put into the comment, where the controller looks. Put beside slurm.conf, with
CliFilterPlugins=lua there and the SPANK plug-in in plugstack.conf.

What the person has said stands. It is done for jobs with our options only, and runs as the user: a courtesy, and no
place for rules.
]]

local UNSAID = { ["unset"] = true, ["0@0"] = true, [""] = true }

-- option, what it shall be
local NEEDED = {
   { "no-kill", "set" },         -- or Slurm ends the job with the node
   { "requeue", "set" },         -- where no spare is left
   { "open-mode", "append" },    -- or each attempt overwrites the output of the one before
   { "signal", "B:USR2@90" },    -- or nobody is told that the time limit comes near
}

local UNITS_S = { s = 1, m = 60, h = 3600, d = 86400 }

-- "notice:10m,deferrals:2" as the controller reads it in a job's comment.
local function contract(asked)
   local words = {}
   for key, number, unit in asked:gmatch("(%a+):(%d+)(%a?)") do
      words[#words + 1] = string.format("maintenance-%s=%d", key, tonumber(number) * (UNITS_S[unit] or 1))
   end
   return table.concat(words, " ")
end

local function with_spares(options)
   for _, need in ipairs(NEEDED) do
      local name, wanted = need[1], need[2]
      local said = options[name]
      if said == nil or UNSAID[said] then
         options[name] = wanted
      end
   end
end

function slurm_cli_setup_defaults(options, early_pass)
   return slurm.SUCCESS
end

function slurm_cli_pre_submit(options, pack_offset)
   if options["type"] == "sbatch" then
      local asked = (options["spank"] or {})["trainmaster"] or {}
      if asked["tm-spares"] ~= nil then
         with_spares(options)
      end
      if asked["tm-maintenance"] ~= nil then
         local said = options["comment"]
         options["comment"] = (said and said ~= "" and said .. " " or "") .. contract(asked["tm-maintenance"])
      end
   end
   return slurm.SUCCESS
end

function slurm_cli_post_submit(offset, job_id, step_id)
   return slurm.SUCCESS
end
