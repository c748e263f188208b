--[[ Runs inside slurmctld for each job that is submitted or changed (JobSubmitPlugins=lua), under its locks: all other
requests wait meanwhile. So nothing here asks anybody, the only file is read when it has changed, and what goes wrong is
said once in slurmctld's log and never costs anyone a job. What a site wants of jobs stands in a file of its own (SITE); without
it jobs are kept to pods, and nothing else is done.

A site's own rules are further entries of POLICIES. Runs with Lua 5.1 (Debian 12's Slurm) to 5.4. ]]

-- Written by `trainmaster fabric plan`; on a disk of this machine, since slurmctld waits for it.
local PLACEMENTS = "/run/trainmaster/placements"

-- The site's policies, one `key = value` a line. Only text is read here, nothing is run.
local SITE = "/etc/trainmaster/job_submit.conf"

local VERSION = "1"
local SIZE_MAX = 4 * 1024 * 1024 -- bytes; a plan of 100 pods has 30,000
local SITE_MAX = 65536 -- bytes
local PREFER_MAX = 1000 -- Slurm takes 1024 characters
local EXCLUDED_MAX = 100000 -- names; a list that unfolds into more is not counted

-- Of each subject the same words are said once, and again only when others have been in between.
local said = {}
local function say_once(subject, words)
    if said[subject] ~= words then
        said[subject] = words
        slurm.log_info("trainmaster: %s", words)
    end
end

-- The look-up file ---------------------------------------------------------------------------------------------------

local function numbers(text)
    local found = {}
    for word in text:gmatch("%d+") do
        found[#found + 1] = tonumber(word)
    end
    return found
end

-- What a whole file says, or nil and why it cannot be used.
local function parse(text)
    local plan = { labels = {}, parts = {}, ours = "", spent = {} }
    local part, lines, ended = nil, 0, false
    for line in text:gmatch("([^\n]*)\n") do
        local word, rest = line:match("^(%S+) ?(.*)$")
        if ended or word == nil then
            return nil, "torn"
        elseif lines == 0 then
            local version, made, expires = rest:match("^(%S+) made=(%d+) expires=(%d+)$")
            if word ~= "trainmaster-placements" or version == nil then
                return nil, "not a file of placements"
            elseif version ~= VERSION then
                return nil, "of version " .. version .. ", and this plug-in reads " .. VERSION
            end
            plan.head, plan.made, plan.expires = line, tonumber(made), tonumber(expires)
        elseif word == "pod" then
            plan.labels[#plan.labels + 1] = rest
        elseif word == "part" then
            local name, features, free = rest:match("^(%S+) (%S+) (%S+)$")
            if name == nil then
                return nil, "torn"
            end
            part = { features = {}, free = numbers(free), sizes = {} }
            for feature in features:gmatch("[^,]+") do
                part.features[feature] = true
            end
            if #part.free ~= #plan.labels then
                return nil, "torn"
            end
            plan.parts[name] = part
        elseif word == "size" then
            local size, choices = rest:match("^(%d+) (%S+)$")
            if size == nil or part == nil then
                return nil, "torn"
            end
            -- Taken apart when a job of that size comes: whoever meets a new file should not pay for all of it.
            part.sizes[#part.sizes + 1] = { size = tonumber(size), choices = choices }
        elseif word == "ours" then
            plan.ours = " " .. rest .. " "
        elseif word == "end" then
            if tonumber(rest) ~= lines then
                return nil, "torn"
            end
            ended = true
        end
        lines = lines + 1
    end
    if not ended then
        return nil, "torn"
    end
    return plan
end

local current, looked_at = nil, nil

-- The plan that holds now, or nil. The file is looked at once a second at most.
local function plan_of(now)
    if now ~= looked_at then
        looked_at = now
        local file = io.open(PLACEMENTS, "r")
        if file == nil then
            current = nil
            say_once("plan", PLACEMENTS .. " is not there; jobs are not kept to pods")
            return nil
        end
        local head = file:read("*l")
        if current == nil or head ~= current.head then
            local why
            file:seek("set", 0)
            current, why = parse(file:read(SIZE_MAX) or "")
            if current == nil then
                say_once("plan", PLACEMENTS .. " is " .. why .. "; jobs are not kept to pods")
            end
        end
        file:close()
    end
    if current ~= nil and (now >= current.expires or now < current.made - 60) then
        say_once("plan", PLACEMENTS .. " is out of date; jobs are not kept to pods. Does `trainmaster fabric plan` run?")
        return nil
    end
    if current ~= nil then
        say_once("plan", "jobs are kept to pods by " .. PLACEMENTS)
    end
    return current
end

-- The site's file -----------------------------------------------------------------------------------------------------

local function whole(text)
    return tonumber(text:match("^[1-9]%d*$"))
end

local function mebibytes(text)
    local number, unit = text:match("^([1-9]%d*)([MG])$")
    return number and tonumber(number) * (unit == "G" and 1024 or 1)
end

local function yes_or_no(text)
    return ({ yes = 1, no = 0 })[text]
end

local function names(text)
    local found, any = {}, nil
    for name in text:gmatch("[^,%s]+") do
        found[name], any = true, true
    end
    return any and found
end

-- By key, how its value is read (nil or false: it cannot be), and what it should have been.
local KEYS = {
    ["cpus-per-gpu"] = { whole, "a whole number" },
    ["mem-per-gpu"] = { mebibytes, "a size such as 120G" },
    ["requeue"] = { yes_or_no, "yes or no" },
    ["time-limit-from-nodes"] = { whole, "a whole number" },
    ["gpu-partitions"] = { names, "names of partitions" },
}

-- What the text of the file asks for. A line that cannot be understood is told, and the others hold.
local function settings_of(text)
    local found, wrong = {}, {}
    for line in text:gmatch("[^\n]+") do
        local bare = line:gsub("#.*", "")
        local key, value = bare:match("^%s*([%w-]+)%s*=%s*(.-)%s*$")
        if key == nil then
            if bare:match("%S") then
                wrong[#wrong + 1] = "a line that is not `key = value`"
            end
        elseif KEYS[key] == nil then
            wrong[#wrong + 1] = key .. " is unknown"
        else
            found[key] = KEYS[key][1](value) or nil
            if found[key] == nil then
                wrong[#wrong + 1] = key .. " has to be " .. KEYS[key][2]
            end
        end
    end
    if #wrong > 0 then
        say_once("site", SITE .. ": " .. table.concat(wrong, "; ") .. ". What else it says holds")
    elseif next(found) ~= nil then
        say_once("site", "the site's policies are those of " .. SITE)
    end
    return found
end

local settings, settings_text, settings_at = {}, "", nil

-- What the site wants now. The file is looked at once a second at most.
local function site()
    local now = os.time()
    if now ~= settings_at then
        settings_at = now
        local file = io.open(SITE, "r")
        local text = file and file:read(SITE_MAX) or ""
        if file ~= nil then
            file:close()
        end
        if text ~= settings_text then
            settings, settings_text = settings_of(text), text
        end
    end
    return settings
end

-- What a job asks for -------------------------------------------------------------------------------------------------

-- Slurm writes "not given" as one of its largest numbers.
local function given(value)
    value = tonumber(value)
    if value == nil or value >= slurm.NO_VAL - 1 then
        return nil
    end
    return value
end

-- How many nodes a list such as n[01-04,7],gpu3 has; nil when it cannot be told.
local function count_of(list)
    local total, at = 0, 1
    while at <= #list do
        local stop = at
        local depth, size = 0, 1
        while stop <= #list do
            local letter = list:sub(stop, stop)
            if letter == "[" then
                depth = depth + 1
                local close = list:find("]", stop, true)
                if close == nil or depth > 1 then
                    return nil
                end
                local inside = 0
                for range in list:sub(stop + 1, close - 1):gmatch("[^,]+") do
                    local low, high = range:match("^(%d+)%-(%d+)$")
                    if low == nil and not range:match("^%d+$") then
                        return nil
                    end
                    inside = inside + (low and tonumber(high) - tonumber(low) + 1 or 1)
                end
                size, stop, depth = size * inside, close, 0
            elseif letter == "," then
                break
            elseif not letter:match("[%w%._%-]") then
                return nil -- a name of a node set, or a function such as switch{}
            end
            stop = stop + 1
        end
        total, at = total + size, stop + 1
        if total > EXCLUDED_MAX then
            return nil
        end
    end
    return total
end

local function default_partition(partitions)
    for name, partition in pairs(partitions or {}) do
        if partition.flag_default == 1 or partition.flag_default == true then
            return name
        end
    end
end

-- Whether every node of the partition has what the job's --constraint asks for, so that any pod will do.
local function any_node_will_do(features, part)
    for word in (features or ""):gmatch("[^,&]+") do
        if not part.features[word] then
            return false
        end
    end
    return true
end

-- Fields of 16 bits have a "not given" of their own.
local function given_16(value)
    value = given(value)
    return value ~= nil and value < 65533 and value or nil
end

-- How Slurm writes GPUs in this job's request ("gres:gpu", later "gres/gpu"); nil when it asks for none.
local function gpu_word(job)
    for _, field in ipairs({ "tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket" }) do
        local word = ("," .. (job[field] or "") .. ","):match("[,](gres[:/]gpu)[,:=]")
        if word ~= nil then
            return word
        end
    end
end

-- What the site wants --------------------------------------------------------------------------------------------------

-- A job of many nodes without an end is one that nothing can be planned around, maintenance and backfill included.
local time_limit = { name = "time-limit-from-nodes" }

function time_limit.submit(job)
    local from, nodes = site()["time-limit-from-nodes"], given(job.min_nodes) or 1
    if from ~= nil and nodes >= from and given(job.time_limit) == nil then
        return string.format(
            "a job of %d nodes needs a time limit here (from %d nodes on): add --time, such as --time=24:00:00", nodes, from
        )
    end
end

local gpu_partitions = { name = "gpu-partitions" }

function gpu_partitions.submit(job, partitions)
    local wanted = site()["gpu-partitions"]
    if wanted == nil or gpu_word(job) ~= nil then
        return
    end
    for name in (job.partition or default_partition(partitions) or ""):gmatch("[^,]+") do
        if wanted[name] then
            return string.format(
                "partition %s is for jobs with GPUs: add --gpus-per-node, or choose another by --partition", name
            )
        end
    end
end

-- Each GPU's share of CPUs and memory. Whole nodes, and who says anything about CPUs or memory, are left alone.
local gpu_shares = { name = "cpus-per-gpu and mem-per-gpu" }

function gpu_shares.submit(job)
    local word = gpu_word(job)
    if word == nil or job.shared == 0 then
        return
    end
    local cpus, mem = site()["cpus-per-gpu"], site()["mem-per-gpu"]
    if cpus ~= nil and job.cpus_per_tres == nil and given_16(job.cpus_per_task) == nil then
        job.cpus_per_tres = string.format("%s:%d", word, cpus)
    end
    if mem ~= nil and job.mem_per_tres == nil and job.min_mem_per_node == nil and job.min_mem_per_cpu == nil then
        job.mem_per_tres = string.format("%s:%d", word, mem)
    end
end

local requeue = { name = "requeue" }

function requeue.submit(job)
    local wanted = site()["requeue"]
    if wanted ~= nil and given_16(job.requeue) == nil then
        job.requeue = wanted
    end
end

-- Keep jobs to pods ---------------------------------------------------------------------------------------------------

-- Nodes that a set of pods still has, after what was given out since the plan was made; none for pods that are not there.
local function room(plan, part, pods)
    local total = 0
    for _, pod in ipairs(pods) do
        if part.free[pod] == nil then
            return 0
        end
        total = total + math.max(0, part.free[pod] - (plan.spent[pod] or 0))
    end
    return total
end

-- The next job shall see that these nodes will be gone: those of the pod with most room first.
local function spend(plan, part, pods, wanted)
    local order = {}
    for index, pod in ipairs(pods) do
        order[index] = { pod = pod, room = math.max(0, part.free[pod] - (plan.spent[pod] or 0)) }
    end
    table.sort(order, function(one, other) return one.room > other.room end)
    for _, entry in ipairs(order) do
        local taken = math.min(wanted, entry.room)
        plan.spent[entry.pod] = (plan.spent[entry.pod] or 0) + taken
        wanted = wanted - taken
    end
end

-- What a job of so many nodes should prefer; nil when nothing is known that would help it.
local function answer(plan, part, wanted, excluded)
    for _, entry in ipairs(part.sizes) do
        if entry.size >= wanted then
            for set in entry.choices:gmatch("[^;]+") do
                local pods = numbers(set)
                -- Whichever nodes it excludes may be just these: with less room than that Slurm might refuse the job.
                if room(plan, part, pods) >= wanted + excluded then
                    local words = {}
                    for index, pod in ipairs(pods) do
                        words[index] = plan.labels[pod]
                    end
                    spend(plan, part, pods, wanted)
                    return table.concat(words, "|")
                end
            end
            return nil
        end
    end
end

-- A preference that prefers nothing, since Lua cannot take one away: what the job must have anyway, or any pod of the plan.
local function indifferent(plan, features)
    if features ~= nil and features ~= "" then
        return features
    end
    local words = {}
    for _, name in ipairs(plan.labels) do
        if name ~= "-" then
            words[#words + 1] = name
        end
    end
    return table.concat(words, "|")
end

--[[ A preference (--prefer) is all that is set: Slurm tries the job in these pods first and anywhere else next, so a wrong
answer costs nothing. Leaving nodes out (exc_nodes) or naming them (req_nodes) would make a job wait for them. Where
Slurm looks at the preference it does not look at --constraint, so only jobs whose constraint all nodes meet get one. ]]
local keep_to_pods = { name = "keep_to_pods" }

-- What the planner looks for in the comments of waiting jobs: Slurm tells nobody what an option of ours was set to.
local NO_PLACE = "tm-placement=off"

-- Whether `sbatch --tm-placement=off` was said. What SPANK plug-ins leave is a list of NAME=VALUE that begins with 0.
local function wants_no_place(job)
    for _, word in pairs(job.spank_job_env or {}) do
        if word == "TRAINMASTER_PLACEMENT=off" then
            return true
        end
    end
    return false
end

function keep_to_pods.submit(job, partitions)
    if wants_no_place(job) then
        local before = job.comment
        job.comment = (before ~= nil and before ~= "") and before .. " " .. NO_PLACE or NO_PLACE
        return
    end
    local plan = plan_of(os.time())
    if plan == nil or job.prefer ~= nil or job.req_nodes ~= nil or job.reservation ~= nil then
        return
    end
    local part = plan.parts[job.partition or default_partition(partitions) or ""]
    local least, most = given(job.min_nodes), given(job.max_nodes)
    if part == nil or least == nil or least < 2 or not any_node_will_do(job.features, part) then
        return
    end
    local excluded = job.exc_nodes and count_of(job.exc_nodes) or 0
    if job.exc_nodes ~= nil and excluded == 0 then
        return
    end
    local words = answer(plan, part, math.max(least, most or 0), excluded)
    if words ~= nil and #words <= PREFER_MAX then
        job.prefer = words
    end
end

local function is_ours(plan, job_id)
    return plan.ours:find(string.format(" %d ", tonumber(job_id)), 1, true) ~= nil
end

-- A waiting job with another --constraint would not get what it asks for, and one that becomes larger, or moves, may not
-- fit into its pods even when they are empty.
function keep_to_pods.modify(job, record)
    local plan = plan_of(os.time())
    if plan == nil or job.prefer ~= nil or not is_ours(plan, record.job_id) then
        return
    end
    local more = (given(job.min_nodes) or 0) > (given(record.min_nodes) or 0)
    if more or job.partition ~= nil or job.features ~= nil or job.exc_nodes ~= nil or job.reservation ~= nil then
        local words = indifferent(plan, job.features or record.features)
        if words ~= "" and #words <= PREFER_MAX then
            job.prefer = words
        end
    end
end

-- All of it -----------------------------------------------------------------------------------------------------------

--[[ In this order: those that may refuse come before those that give something out. An entry has a name and
`submit(job, partitions, user)`, `modify(job, record, partitions, user)` or both. They change the job, and return nothing,
or why the job is refused and what to do: its owner reads that. One that fails is skipped. ]]
local POLICIES = { time_limit, gpu_partitions, gpu_shares, requeue, keep_to_pods }

local function apply(kind, ...)
    for _, policy in ipairs(POLICIES) do
        if policy[kind] ~= nil then
            local fine, why = pcall(policy[kind], ...)
            if not fine then
                say_once(policy.name, policy.name .. " failed and is skipped: " .. tostring(why))
            elseif why ~= nil then
                slurm.log_user("trainmaster: %s", why)
                return slurm.ERROR
            end
        end
    end
    return slurm.SUCCESS
end

function slurm_job_submit(job, partitions, user)
    return apply("submit", job, partitions, user)
end

function slurm_job_modify(job, record, partitions, user)
    return apply("modify", job, record, partitions, user)
end

return slurm.SUCCESS
