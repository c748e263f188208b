--[[
trainmaster's part of the submission, at the client: what a job with `--tm-spares` needs so that losing a node does not
end it. Put beside slurm.conf, with CliFilterPlugins=lua there and the SPANK plug-in in plugstack.conf.

What the person has said stands. It is done for jobs with `--tm-spares` only, and runs as the user: a courtesy, and no
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

local function asked_for_spares(options)
   local ours = (options["spank"] or {})["trainmaster"] or {}
   return ours["tm-spares"] ~= nil
end

function slurm_cli_setup_defaults(options, early_pass)
   return slurm.SUCCESS
end

function slurm_cli_pre_submit(options, pack_offset)
   if options["type"] ~= "sbatch" or not asked_for_spares(options) then
      return slurm.SUCCESS
   end
   for _, need in ipairs(NEEDED) do
      local name, wanted = need[1], need[2]
      local said = options[name]
      if said == nil or UNSAID[said] then
         options[name] = wanted
      end
   end
   return slurm.SUCCESS
end

function slurm_cli_post_submit(offset, job_id, step_id)
   return slurm.SUCCESS
end
