-- What job_submit.lua finds in slurmctld, as far as it uses it: job and partition fields as Slurm hands them out.
-- arg: the plug-in's text with its own path of placements, a file to run after it.
slurm = { SUCCESS = 0, ERROR = -1, NO_VAL = 4294967294 }
logged = {}
function slurm.log_info(form, ...)
    logged[#logged + 1] = string.format(form, ...)
end

told = {}
function slurm.log_user(form, ...)
    told[#told + 1] = string.format(form, ...)
end

clock = 1000
os.time = function() return clock end

-- Lua may only write these, each as Slurm takes it; Slurm takes "" for nothing.
local WRITABLE = {
    prefer = "string", comment = "string", cpus_per_tres = "string", mem_per_tres = "string", requeue = "number",
}
local UNSET = slurm.NO_VAL
function a_job(fields)
    local known = { min_nodes = UNSET, max_nodes = UNSET, job_id = UNSET, time_limit = UNSET, cpus_per_task = 65534, requeue = 65534 }
    for key, value in pairs(fields) do
        known[key] = value
    end
    return setmetatable({}, {
        __index = function(_, key) return known[key] end,
        __newindex = function(_, key, value)
            assert(WRITABLE[key], "wrote " .. key)
            assert(type(value) == WRITABLE[key], "wrote a " .. type(value) .. " to " .. key)
            if value ~= "" then known[key] = value end
        end,
    })
end
partitions = { other = { flag_default = 0 }, batch = { flag_default = 1 } }
function submit(fields)
    local job = a_job(fields)
    assert(slurm_job_submit(job, partitions, 1000) == slurm.SUCCESS)
    return tostring(job.prefer)
end
function refused(fields)
    local words = #told
    local code = slurm_job_submit(a_job(fields), partitions, 1000)
    assert((code == slurm.ERROR) == (#told > words))
    return told[words + 1] or "accepted"
end
function modify(fields, record)
    local job = a_job(fields)
    assert(slurm_job_modify(job, a_job(record), partitions, 1000) == slurm.SUCCESS)
    return tostring(job.prefer)
end

assert(dofile(arg[1]) == slurm.SUCCESS)
dofile(arg[2])
