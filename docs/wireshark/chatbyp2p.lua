-- ChatByP2P for Wireshark: announcements, requests and replies, and the bytes of files.
--
--   wireshark -X lua_script:docs/wireshark/chatbyp2p.lua docs/first-contact.pcap
--   tshark    -X lua_script:docs/wireshark/chatbyp2p.lua -r docs/first-contact.pcap -V
--
-- To have it always, copy it into the folder that Help > About > Folders calls "Personal Lua
-- Plugins". Some filters:
--
--   chatbyp2p.name == "ann"          whatever says that it comes from ann
--   chatbyp2p.verb == "MSG"          messages
--   chatbyp2p.time > 0.1             replies that took longer than 100 ms
--   chatbyp2p.breach                 what docs/protocol.md forbids
--   chatbyp2p.crc.status == 0        a file that did not arrive as it was sent
--
-- Numbers in brackets are clauses of docs/protocol.md.
--
-- How it works: Wireshark may show a packet many times, and in any order, but it always goes through
-- the whole capture once before. On that first pass each line is read in its order, and judged with
-- what has passed on its connection until then; what came out is remembered, a table for each line.
-- To show a line is to draw that table, so a packet looks the same whenever it is shown.
--
-- What it leaves out: who is listed, which no single packet tells. A connection whose beginning was
-- not captured is judged from what is there, and of a line that never ends TCP shows the bytes. Two
-- connections one after the other between the same two ports are taken for one.

local chat = Proto("chatbyp2p", "ChatByP2P")

-- Wireshark calls the one for datagrams and the other for connections: on the first pass nothing
-- else tells which it is, for fields such as tcp.stream are not there yet.
local over_tcp = Proto("chatbyp2p_tcp", "ChatByP2P over TCP")

-- [2] Limits and ports
local word = "ChatByP2P/1"
local shared_port = 25252
local own_ports = "25253-25508"
local most = {
  datagram = 512,            -- bytes, as all of these but the last
  line = 4096,
  text = 4000,
  file_name = 255,
  number = "9223372036854775807",
  checksum = "4294967295",
  name = 32,                 -- characters
}

-- A larger block of bytes is not put together here: Wireshark would keep it twice.
local most_kept = 32 * 1024 * 1024

-- ============================================================================
-- What can be filtered
-- ============================================================================

local statuses = {[0] = "Bad", [1] = "Good", [2] = "Unverified"}

local f = {
  line = ProtoField.string("chatbyp2p.line", "Line", base.UNICODE),
  version = ProtoField.string("chatbyp2p.version", "Version"),
  verb = ProtoField.string("chatbyp2p.verb", "Verb"),
  reply = ProtoField.string("chatbyp2p.reply", "Reply", nil, "OK or NO"),
  reason = ProtoField.string("chatbyp2p.reason", "Reason", nil, "The word after NO"),
  sentence = ProtoField.string("chatbyp2p.sentence", "Sentence", base.UNICODE),
  text = ProtoField.string("chatbyp2p.text", "Text", base.UNICODE),
  other = ProtoField.string("chatbyp2p.field", "Unknown field", base.UNICODE),

  id = ProtoField.string("chatbyp2p.id", "Id"),
  ip = ProtoField.ipv4("chatbyp2p.ip", "IP address"),
  port = ProtoField.uint16("chatbyp2p.port", "Port"),
  name = ProtoField.string("chatbyp2p.name", "Name", base.UNICODE),
  group = ProtoField.string("chatbyp2p.group", "Group", base.UNICODE),
  to = ProtoField.string("chatbyp2p.to", "To", nil, "The id of who is answered"),
  ask = ProtoField.string("chatbyp2p.ask", "Ask", nil, "host: name its other instances, too"),
  every = ProtoField.uint64("chatbyp2p.every", "Every", base.DEC, nil, nil, "Seconds between heartbeats"),

  number = ProtoField.uint64("chatbyp2p.number", "Number"),
  scope = ProtoField.string("chatbyp2p.scope", "Scope"),
  size = ProtoField.uint64("chatbyp2p.size", "Size"),
  files = ProtoField.uint64("chatbyp2p.files", "Files"),
  mode = ProtoField.string("chatbyp2p.mode", "Mode"),
  offset = ProtoField.uint64("chatbyp2p.offset", "Offset"),
  entries = ProtoField.uint64("chatbyp2p.entries", "Entries"),
  missing = ProtoField.uint64("chatbyp2p.missing", "Missing"),
  crc = ProtoField.uint64("chatbyp2p.crc", "Checksum"),
  computed = ProtoField.uint32("chatbyp2p.crc.computed", "Computed checksum"),
  status = ProtoField.uint8("chatbyp2p.crc.status", "Checksum status", base.DEC, statuses),

  data = ProtoField.bytes("chatbyp2p.data", "Bytes", nil, "The bytes behind one DATA"),
  file = ProtoField.string("chatbyp2p.file", "File", base.UNICODE),
  content = ProtoField.bytes("chatbyp2p.content", "Content", nil, "All bytes of a file"),
  skipped = ProtoField.bytes("chatbyp2p.skipped", "Not dissected"),

  request_in = ProtoField.framenum("chatbyp2p.request_in", "Request in", base.NONE, frametype.REQUEST),
  reply_in = ProtoField.framenum("chatbyp2p.reply_in", "Reply in", base.NONE, frametype.RESPONSE),
  time = ProtoField.relative_time("chatbyp2p.time", "Time since the request"),
  breach = ProtoField.string("chatbyp2p.breach", "Breach of the specification"),
}
chat.fields = f

local e = {
  form = ProtoExpert.new("chatbyp2p.expert.form", "The line is not of the form of clause 3.2",
                         expert.group.MALFORMED, expert.severity.ERROR),
  field = ProtoExpert.new("chatbyp2p.expert.field", "A field is missing or wrong",
                          expert.group.MALFORMED, expert.severity.ERROR),
  order = ProtoExpert.new("chatbyp2p.expert.order", "This line must not come here",
                          expert.group.SEQUENCE, expert.severity.WARN),
  checksum = ProtoExpert.new("chatbyp2p.expert.checksum", "The checksum is wrong",
                             expert.group.CHECKSUM, expert.severity.ERROR),
  refused = ProtoExpert.new("chatbyp2p.expert.refused", "The request was refused",
                            expert.group.RESPONSE_CODE, expert.severity.NOTE),
  remark = ProtoExpert.new("chatbyp2p.expert.remark", "Worth knowing",
                           expert.group.COMMENTS_GROUP, expert.severity.CHAT),
}
chat.experts = {e.form, e.field, e.order, e.checksum, e.refused, e.remark}

-- ============================================================================
-- [3] Text and values
-- ============================================================================

-- Pairs of first and last.
local control = {
  0x00, 0x08, 0x0A, 0x1F, 0x7F, 0x9F, 0x61C, 0x61C, 0x200E, 0x200F, 0x2028, 0x202E, 0x2066, 0x2069,
}
local blank = {
  0x20, 0x20, 0xA0, 0xA0, 0x115F, 0x1160, 0x1680, 0x1680, 0x2000, 0x200B, 0x202F, 0x202F,
  0x205F, 0x205F, 0x2800, 0x2800, 0x3000, 0x3000, 0x3164, 0x3164, 0xFEFF, 0xFEFF, 0xFFA0, 0xFFA0,
  0x13441, 0x13442, 0x1D159, 0x1D159,
}
local invisible = {
  0xAD, 0xAD, 0x34F, 0x34F, 0x17B4, 0x17B5, 0x180B, 0x180F, 0x200C, 0x200D, 0x2060, 0x2065,
  0x206A, 0x206F, 0xFE00, 0xFE0F, 0xFFF0, 0xFFF8, 0x1BCA0, 0x1BCA3, 0x1D173, 0x1D17A,
  0xE0000, 0xE0FFF,
}

local function is_in(ranges, code)
  for i = 1, #ranges, 2 do
    if code >= ranges[i] and code <= ranges[i + 1] then return true end
  end
  return false
end

-- How many bytes the character has that begins with this one, and what of its code is in it.
local function first_byte(byte)
  if byte < 0x80 then return 1, byte, 0 end
  if byte >= 0xC2 and byte < 0xE0 then return 2, byte - 0xC0, 0x80 end
  if byte >= 0xE0 and byte < 0xF0 then return 3, byte - 0xE0, 0x800 end
  if byte >= 0xF0 and byte < 0xF5 then return 4, byte - 0xF0, 0x10000 end
  return nil
end

-- The codes of the characters; nil where the bytes are not UTF-8.
local function decode(bytes)
  local codes = {}
  local at = 1
  while at <= #bytes do
    local size, code, least = first_byte(bytes:byte(at))
    if not size or at + size - 1 > #bytes then return nil end
    for i = at + 1, at + size - 1 do
      local byte = bytes:byte(i)
      if byte < 0x80 or byte > 0xBF then return nil end
      code = code * 64 + byte - 0x80
    end
    local is_surrogate = code >= 0xD800 and code <= 0xDFFF
    if code < least or code > 0x10FFFF or is_surrogate then return nil end
    codes[#codes + 1] = code
    at = at + size
  end
  return codes
end

local function is_text(bytes)
  local codes = decode(bytes)
  if not codes then return false end
  for _, code in ipairs(codes) do
    if is_in(control, code) then return false end
  end
  return true
end

local function is_name(bytes)
  local codes = decode(bytes)
  if not codes or #codes == 0 or #codes > most.name then return false end
  local can_be_seen = false
  for _, code in ipairs(codes) do
    if code == 0x09 or is_in(control, code) or is_in(blank, code) then return false end
    if not is_in(invisible, code) then can_be_seen = true end
  end
  return can_be_seen
end

local function is_id(bytes)
  return #bytes == 16 and bytes:find("^[0-9a-f]+$") ~= nil
end

local function is_ip(bytes)
  local parts = {bytes:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")}
  if #parts ~= 4 then return false end
  for _, part in ipairs(parts) do
    if #part > 3 or tonumber(part) > 255 then return false end
    if #part > 1 and part:sub(1, 1) == "0" then return false end
  end
  return true
end

-- Numbers are compared as text: Lua of some versions has no 64 bits.
local function is_number(bytes, limit)
  if not bytes:find("^%d+$") then return false end
  local digits = bytes:gsub("^0+(%d)", "%1")
  if #digits ~= #limit then return #digits < #limit end
  for i = 1, #digits do
    if digits:byte(i) ~= limit:byte(i) then return digits:byte(i) < limit:byte(i) end
  end
  return true
end

local function is_size(bytes) return is_number(bytes, most.number) end
local function is_checksum(bytes) return is_number(bytes, most.checksum) end
local function is_port(bytes) return is_number(bytes, "65535") and tonumber(bytes) > 0 end
local function is_anything() return true end

local function to_uint64(digits)
  local value = UInt64(0)
  for i = 1, #digits do
    value = value * UInt64(10) + UInt64(digits:byte(i) - 48)
  end
  return value
end

-- The last component of a file's name, or of a folder's (without its "/").
local function last_component(name)
  return name:gsub("/$", ""):match("[^/]*$")
end

local function is_file_name(name)
  if name == "" or name == "." or name == ".." then return false end
  return #name <= most.file_name and not name:find("\t", 1, true)
end

local function is_path(path)
  for component in (path:gsub("/$", "") .. "/"):gmatch("([^/]*)/") do
    if not is_file_name(component) then return false end
  end
  return true
end

-- By their bytes. Lua's own "<" goes by the language of whoever runs Wireshark.
local function is_before(one, other)
  for i = 1, math.min(#one, #other) do
    if one:byte(i) ~= other:byte(i) then return one:byte(i) < other:byte(i) end
  end
  return #one < #other
end

-- ============================================================================
-- [6.4] The checksum: the CRC of POSIX cksum
-- ============================================================================

local bits = bit32 or bit
local polynomial = 0x04C11DB7

local crc_table = {}
for i = 0, 255 do
  local remainder = bits.lshift(i, 24)
  for _ = 1, 8 do
    local is_high = bits.band(remainder, 0x80000000) ~= 0
    remainder = bits.lshift(remainder, 1)
    if is_high then remainder = bits.bxor(remainder, polynomial) end
  end
  crc_table[i] = bits.band(remainder, 0xFFFFFFFF)
end

local function crc_add(crc, bytes)
  for i = 1, #bytes do
    local index = bits.bxor(bits.rshift(crc, 24), bytes:byte(i))
    crc = bits.bxor(bits.band(bits.lshift(crc, 8), 0xFFFFFFFF), crc_table[index])
  end
  return crc
end

-- The number of bytes, lowest first and without leading zeros: the CRC goes over it at the end.
local function length_bytes(size)
  local all = ""
  while size > 0 do
    all = all .. string.char(size % 256)
    size = math.floor(size / 256)
  end
  return all
end

local function crc_end(crc, size)
  return bits.bnot(crc_add(crc, length_bytes(size))) % 0x100000000
end

-- The same backwards. A resumed file's beginning was not captured; but its checksum is in the reply
-- to the offer, and from there the CRC of its bytes alone can be had, for the last byte of an entry
-- of the table is another one in each entry.
local entry_of = {}
for i = 0, 255 do entry_of[bits.band(crc_table[i], 0xFF)] = i end

local function crc_before_end(checksum, size)
  local crc = bits.bnot(checksum)
  local bytes = length_bytes(size)
  for i = #bytes, 1, -1 do
    local index = entry_of[bits.band(crc, 0xFF)]
    local high = bits.bxor(index, bytes:byte(i))
    crc = bits.bor(bits.rshift(bits.bxor(crc, crc_table[index]), 8), bits.lshift(high, 24))
  end
  return crc
end

-- ============================================================================
-- [3.2] A line, taken apart
-- ============================================================================

-- line.parts is what is to be shown of it, in order: {field, offset, bytes}. line.values has the
-- known fields by their key, line.problems and line.remarks what is to be said of it.
local function new_line(bytes)
  return {bytes = bytes, parts = {}, values = {}, problems = {}, remarks = {}}
end

local function add_problem(line, kind, text)
  line.problems[#line.problems + 1] = {kind = kind, text = text}
end

local function add_remark(line, text)
  line.remarks[#line.remarks + 1] = text
end

local function add_part(line, field, offset, bytes)
  line.parts[#line.parts + 1] = {field = field, offset = offset, bytes = bytes}
end

local keys = {
  id = is_id,
  ip = is_ip,
  port = is_port,
  name = is_name,
  group = is_name,
  to = function(bytes) return bytes == "" or is_id(bytes) end,
  ask = is_anything,
  every = is_anything,
  number = is_size,
  scope = is_anything,
  size = is_size,
  files = is_size,
  mode = is_anything,
  offset = is_size,
  entries = is_size,
  missing = is_size,
  crc = is_checksum,
}

-- The fields that a verb must have; the others that it may have; and what its text is.
local announcement = {
  required = {"id", "ip", "port", "name", "group"},
  optional = {"to", "ask", "every"},
}
local verbs = {
  HELLO = announcement,
  HERE = announcement,
  BYE = announcement,
  MSG = {required = {"number"}, optional = {"scope"}, text = {least = 1, most = most.text}},
  OFFER = {required = {"size", "files"}, optional = {"mode"}, text = {least = 1, most = most.line}},
  FILE = {required = {}, optional = {"mode"}, text = {least = 1, most = most.text}},
  DATA = {required = {"offset", "size"}, optional = {}},
  MISSING = {required = {}, optional = {}, text = {least = 0, most = most.line}},
  END = {required = {"size", "crc"}, optional = {}},
  RESUME = {required = {}, optional = {}},
  STOP = {required = {}, optional = {}, text = {least = 0, most = most.line}},
  OK = {required = {}, optional = {"entries", "offset", "crc", "missing"}, text = {least = 0, most = most.line}},
}

local function is_known(verb, key)
  for _, list in ipairs({verb.required, verb.optional}) do
    for _, known in ipairs(list) do
      if known == key then return true end
    end
  end
  return false
end

local function read_field(line, verb, offset, piece, seen)
  local key, value = piece:match("^([^=:][^=]*)=(.*)$")
  if not key then
    add_problem(line, e.form, "\"" .. piece .. "\" is no field [3.2]")
    return add_part(line, f.other, offset, piece)
  end
  if seen[key] then add_problem(line, e.form, key .. "= is given twice [3.2]") end
  seen[key] = true
  if not is_known(verb, key) then return add_part(line, f.other, offset, piece) end
  if not keys[key](value) then
    add_problem(line, e.field, key .. "= has a wrong value [2.2, 3, 4.1]")
    return add_part(line, f.other, offset, piece)
  end
  line.values[key] = value
  add_part(line, f[key], offset + #key + 1, value)
end

-- From `offset` on: fields, and the text behind the first " :".
local function read_fields(line, verb, offset)
  local bytes = line.bytes
  local colon = bytes:find(" :", offset, true)
  local head_end = colon and colon - 1 or #bytes
  local seen = {}
  local at = offset
  while at < head_end do
    local blank_at = at + 1  -- there is a blank before each field
    local next_blank = bytes:find(" ", blank_at + 1, true) or #bytes + 1
    local piece = bytes:sub(blank_at + 1, math.min(next_blank - 1, head_end))
    if piece ~= "" then read_field(line, verb, blank_at, piece, seen) end
    at = math.min(next_blank - 1, head_end)
  end
  for _, key in ipairs(verb.required) do
    local is_there = seen[key]
    if not is_there then add_problem(line, e.field, key .. "= is missing [4.1, 5.3, 6]") end
  end
  if not colon then return "" end
  local text = bytes:sub(colon + 2)
  add_part(line, f.text, colon + 1, text)
  return text
end

local function read_text(line, verb, text)
  line.text = text
  if not verb.text then
    if text ~= "" then add_remark(line, "A text where none belongs is skipped [3.2]") end
    return
  end
  if #text < verb.text.least then add_problem(line, e.field, "A text is missing [5.3, 6]") end
  if #text > verb.text.most then add_problem(line, e.field, "The text is too long [2.2]") end
end

-- "ChatByP2P/1 HELLO id=..." from `offset` on, which is behind "OK " in a reply.
local function read_announcement(line, offset)
  local version, verb = line.bytes:match("^(%S+) ?(%S*)", offset + 1)
  add_part(line, f.version, offset, version)
  add_part(line, f.verb, offset + #version + 1, verb)
  line.verb = verb
  line.is_announcement = true
  if version ~= word then
    add_problem(line, e.form, "This is version " .. version .. ", not " .. word .. " [8]")
  elseif verb ~= "HELLO" and verb ~= "HERE" and verb ~= "BYE" then
    add_problem(line, e.form, "An announcement is HELLO, HERE or BYE [3.2]")
  else
    local text = read_fields(line, announcement, offset + #version + 1 + #verb)
    if text ~= "" then add_remark(line, "A text where none belongs is skipped [3.2]") end
  end
end

local function check_optional_fields(line)
  local values = line.values
  if values.to == "" then values.to = nil end
  if values.to and line.verb ~= "HERE" then add_remark(line, "to= says nothing in " .. line.verb .. " [4.4]") end
  if values.every and not (is_number(values.every, "60") and tonumber(values.every) >= 5) then
    add_remark(line, "every= is not a number from 5 to 60, and is skipped")
  end
end

local function begins_with_word(bytes)
  return bytes:find("^ChatByP2P/") ~= nil
end

local function check_characters(line)
  if not is_text(line.bytes) then add_problem(line, e.form, "This is not text [3.1]") end
end

local function read_request(bytes)
  local line = new_line(bytes)
  check_characters(line)
  if begins_with_word(bytes) then
    read_announcement(line, 0)
    check_optional_fields(line)
    return line
  end
  line.verb = bytes:match("^[^ ]*")
  add_part(line, f.verb, 0, line.verb)
  local verb = verbs[line.verb]
  if not verb or verb == announcement or line.verb == "OK" then
    line.is_unknown = true
    return line
  end
  read_text(line, verb, read_fields(line, verb, #line.verb))
  return line
end

local function read_reply(bytes)
  local line = new_line(bytes)
  check_characters(line)
  local answer = bytes:match("^[^ ]*")
  line.is_reply = true
  line.reply = answer
  if answer == "NO" then
    local reason, sentence = bytes:match("^NO (%S+) ?(.*)$")
    add_part(line, f.reply, 0, answer)
    if not reason then
      add_problem(line, e.form, "NO says no word [5.1]")
      return line
    end
    line.reason = reason
    add_part(line, f.reason, 3, reason)
    add_part(line, f.sentence, 4 + #reason, sentence)
  elseif answer == "OK" then
    add_part(line, f.reply, 0, answer)
    if begins_with_word(bytes:sub(4)) then
      read_announcement(line, 3)
      check_optional_fields(line)
    else
      read_text(line, verbs.OK, read_fields(line, verbs.OK, 2))
    end
  else
    add_problem(line, e.form, "A reply is OK or NO [5.1]")
  end
  return line
end

local function has_problems(line) return #line.problems > 0 end

-- ============================================================================
-- A request and its reply
-- ============================================================================

local function note_where(line, pinfo)
  line.frame = pinfo.number
  line.at = pinfo.rel_ts
end

local function match(request, reply)
  request.reply_in = request.reply_in or reply.frame
  reply.request_in = request.frame
  reply.time = reply.at - request.at
  reply.answers = request.verb
end

-- ============================================================================
-- [4] Datagrams
-- ============================================================================

local datagrams  -- by the number of their packet
local hellos     -- by the id of who asked

local function check_source(line, pinfo)
  local values = line.values
  if values.ip and values.ip ~= tostring(pinfo.src) then
    add_remark(line, "It comes from another address than it says in ip= [4.1]")
  end
  if not values.port or tonumber(values.port) == pinfo.src_port then return end
  if line.verb == "HERE" then
    add_remark(line, "Hearsay: a host-mate of " .. (values.name or "?") .. " speaks of it [4.3]")
  elseif line.verb == "BYE" then
    add_problem(line, e.order, "A BYE from another port than its own is nothing [4.3]")
  else
    add_remark(line, "A HELLO from another port than its own is answered, and nothing more [4.3]")
  end
end

-- To the last HELLO of that id that it can have heard and has not answered: one to its address, or
-- one that went to the shared port of a whole network.
local function match_here(line, pinfo)
  local asked = line.values.to and hellos[line.values.to] or {}
  local source = tostring(pinfo.src)
  for i = #asked, 1, -1 do
    local hello = asked[i]
    local is_to_it = hello.dst == source or hello.dst_port == shared_port
    if is_to_it and not hello.answered[source] then
      hello.answered[source] = true
      return match(hello, line)
    end
  end
end

local function remember_hello(line, pinfo)
  local id = line.values.id
  line.dst = tostring(pinfo.dst)
  line.dst_port = pinfo.dst_port
  line.answered = {}
  hellos[id] = hellos[id] or {}
  table.insert(hellos[id], line)
end

local function read_datagram(bytes, pinfo)
  local line = read_request(bytes:gsub("\r?\n$", ""))
  note_where(line, pinfo)
  if #bytes > most.datagram then add_problem(line, e.form, "A datagram has 512 bytes at most [2.2]") end
  if not line.is_announcement then
    add_problem(line, e.form, "A datagram is an announcement [3.2]")
  end
  if pinfo.src_port == 0 then add_problem(line, e.order, "No peer has port 0 [4.2]") end
  if has_problems(line) then return line end
  check_source(line, pinfo)
  if line.verb == "HELLO" then remember_hello(line, pinfo) end
  if line.verb == "HERE" then match_here(line, pinfo) end
  return line
end

-- ============================================================================
-- [5, 6] Connections
-- ============================================================================

local streams  -- by the two ends
local pieces   -- by where they are: a line, or a block of bytes

local function ends_of(pinfo)
  local from = tostring(pinfo.src) .. ":" .. pinfo.src_port
  local to = tostring(pinfo.dst) .. ":" .. pinfo.dst_port
  return from, to
end

local function stream_of(pinfo)
  local from, to = ends_of(pinfo)
  local key = from < to and from .. " " .. to or to .. " " .. from
  streams[key] = streams[key] or {waiting = {}, requests = 0}
  return streams[key]
end

-- Who opened it asks, who accepted it answers: the first line tells which side that is.
local function is_openers(stream, pinfo, bytes)
  local from, to = ends_of(pinfo)
  if not stream.opener then
    local is_answer = bytes:find("^OK") ~= nil or bytes:find("^NO ") ~= nil
    stream.opener = is_answer and to or from
  end
  return stream.opener == from
end

-- ---- What the opener says -----------------------------------------------------------

local must_wait = {HELLO = true, MSG = true, OFFER = true}
local has_no_reply = {RESUME = true, FILE = true, DATA = true, MISSING = true}

local function wait_for_reply(stream, line)
  stream.waiting[#stream.waiting + 1] = line
end

local function check_waiting(stream, line)
  local before = stream.waiting[#stream.waiting]
  if not before or not must_wait[before.verb] then return end
  if before.verb == "OFFER" and line.verb == "STOP" then return end
  add_problem(line, e.order, "There was no reply to the " .. before.verb .. " yet [5.1, 6.2]")
end

local function read_hello(stream, line)
  local id = line.values.id
  if has_problems(line) then return end
  if line.verb ~= "HELLO" then
    add_problem(line, e.order, "An introduction is a HELLO [5.2]")
  elseif stream.id and stream.id ~= id then
    add_problem(line, e.order, "Another id than before on this connection [5.2]")
  end
end

local function read_message(stream, line)
  if has_problems(line) then return end
  stream.numbers = stream.numbers or {}
  local is_repeat = stream.numbers[line.values.number]
  if is_repeat then add_remark(line, "This number was sent on this connection already [5.3]") end
  stream.numbers[line.values.number] = true
end

local function begin_content(offer, name)
  offer.content = {name = name, size = 0}
  if offer.size <= most_kept then offer.content.bytes = ByteArray.new() end
end

local function read_offer(stream, line)
  if has_problems(line) then return end
  if not is_file_name(last_component(line.text)) then
    add_problem(line, e.field, "No file may have this name [6.1]")
  end
  stream.offer = {
    name = line.text,
    is_folder = line.text:sub(-1) == "/",
    size = tonumber(line.values.size),
    files = tonumber(line.values.files),
    position = 0,
    crc = 0,
    summed = 0,  -- bytes that the checksum is over: those of a folder's paths as well
    entries = 0,
    folders = {[""] = true},
    request = line,
  }
  local is_file = not stream.offer.is_folder
  if is_file then begin_content(stream.offer, last_component(line.text)) end
end

local function add_to_checksum(offer, bytes)
  offer.crc = crc_add(offer.crc, bytes)
  offer.summed = offer.summed + #bytes
end

-- An entry is whole when the next one begins, or the END comes: only then it can be shown.
local function close_entry(offer, line)
  local content = offer.content
  offer.content = nil
  if not content or content.is_missing or content.size == 0 then return end
  line.content = content
end

local function read_resume(offer, line)
  if not offer.beginning then
    return add_problem(line, e.order, "No beginning was named in the reply to the OFFER [6.6]")
  end
  if offer.has_begun then return add_problem(line, e.order, "RESUME is the first line [6.6]") end
  offer.position = tonumber(offer.beginning.offset)
  offer.crc = crc_before_end(tonumber(offer.beginning.crc), offer.position)
  offer.summed = offer.position
  offer.content.from = offer.position
end

local function read_entry(offer, line)
  local path = line.text
  close_entry(offer, line)
  if not offer.is_folder then return add_problem(line, e.order, "No folder was offered [6.5]") end
  offer.entries = offer.entries + 1
  if offer.entries > offer.files then
    add_problem(line, e.order, "More entries than were offered [6.1]")
  end
  if not is_path(path) then add_problem(line, e.field, "A path that is not allowed [6.5]") end
  if offer.last_path and not is_before(offer.last_path, path) then
    add_problem(line, e.order, "Out of the order of the paths [6.5]")
  end
  local parent = path:gsub("/$", ""):match("^(.*/)") or ""
  if not offer.folders[parent] then
    add_problem(line, e.order, "Its subfolder did not come before it [6.5]")
  end
  if path:sub(-1) == "/" then offer.folders[path] = true end
  offer.last_path = path
  add_to_checksum(offer, path .. "\n")
  begin_content(offer, path)
end

local function read_data(stream, offer, line)
  local size = tonumber(line.values.size)
  local left = offer.size - offer.position
  if tonumber(line.values.offset) ~= offer.position then
    add_problem(line, e.order, "offset= is not the number of bytes before: " .. offer.position .. " [6.3]")
  end
  if size == 0 then add_problem(line, e.field, "A DATA has at least one byte [6.3]") end
  if size > left then add_problem(line, e.order, "More bytes than were offered [6.3]") end
  local entry = offer.content
  if not entry then
    add_problem(line, e.order, "There is no entry that these bytes could be of [6.5]")
  elseif entry.is_missing then
    add_problem(line, e.order, "The entry got a MISSING already [6.5]")
  elseif offer.is_folder and entry.name:sub(-1) == "/" then
    add_problem(line, e.order, "A subfolder has no bytes [6.5]")
  end
  if has_problems(line) then return end
  stream.block = {size = size, offer = offer, offset = offer.position}
  if size > most_kept then
    add_remark(line, "So many bytes are not put together here; what follows is not dissected")
    stream.is_lost = true
  end
end

local function read_missing(offer, line)
  local entry = offer.content
  if not offer.is_folder or not entry then
    return add_problem(line, e.order, "No entry has begun [6.5]")
  end
  if entry.is_missing then return add_problem(line, e.order, "It got a MISSING already [6.5]") end
  entry.is_missing = true
end

local function read_end(offer, line)
  close_entry(offer, line)
  local size = tonumber(line.values.size)
  if size ~= offer.position then
    add_problem(line, e.order, "size= is not the number of bytes that came: " .. offer.position .. " [6.4]")
  elseif not offer.is_folder and size ~= offer.size then
    add_problem(line, e.order, "Fewer bytes than were offered [6.4]")
  end
  line.computed = crc_end(offer.crc, offer.summed)
  line.status = 1
  if line.computed ~= tonumber(line.values.crc) then
    line.status = 0
    add_problem(line, e.checksum, "The checksum of what came is " .. line.computed .. " [6.4]")
  end
end

local function read_transfer(stream, line)
  local offer = stream.offer
  if has_problems(line) then return end
  if line.verb == "RESUME" then read_resume(offer, line) end
  if line.verb == "FILE" then read_entry(offer, line) end
  if line.verb == "DATA" then read_data(stream, offer, line) end
  if line.verb == "MISSING" then read_missing(offer, line) end
  if line.verb == "END" then read_end(offer, line) end
  offer.has_begun = true
end

local transfer_verbs = {RESUME = true, FILE = true, DATA = true, MISSING = true, END = true, STOP = true}

-- Whether the acceptor replies to it.
local function read_opener(stream, line)
  stream.requests = stream.requests + 1
  check_waiting(stream, line)
  local is_transfer = transfer_verbs[line.verb] and stream.offer
  if line.is_announcement then
    read_hello(stream, line)
  elseif not stream.id then
    add_problem(line, e.order, "It has not introduced itself: a HELLO comes first [5.2]")
  elseif line.is_unknown then
    add_remark(line, "No version that this dissector knows has this verb [8]")
  elseif is_transfer then
    read_transfer(stream, line)
  elseif stream.offer then
    add_problem(line, e.order, "Within a transfer come its lines only [7]")
  elseif transfer_verbs[line.verb] then
    add_problem(line, e.order, "No offer is open [7]")
  elseif line.verb == "MSG" then
    read_message(stream, line)
  elseif line.verb == "OFFER" then
    read_offer(stream, line)
  end
  -- Who breaks a transfer's rules gets a NO, and the connection ends: what follows may be anything.
  local is_broken = is_transfer and has_problems(line) and line.verb ~= "END"
  if is_broken then stream.is_lost = true end
  if has_no_reply[line.verb] and is_transfer and not is_broken then return end
  wait_for_reply(stream, line)
end

-- ---- What the acceptor says ---------------------------------------------------------

local function read_introduction(stream, request, line)
  local values = line.values
  if line.verb ~= "HERE" then
    return add_problem(line, e.field, "The OK to a HELLO has a HERE [5.2]")
  end
  if values.to ~= request.values.id then
    add_problem(line, e.field, "to= is not the id of who introduced itself [5.2]")
  end
  stream.id = request.values.id
end

local function accept_offer(offer, line)
  local values = line.values
  if not values.offset and not values.crc and not values.entries then return end
  if offer.is_folder then return add_remark(line, "A folder starts anew, whatever is there [6.6]") end
  if not (values.entries and values.offset and values.crc) then
    return add_remark(line, "A beginning is named by entries=, offset= and crc= [6.6]")
  end
  if tonumber(values.offset) > offer.size then
    return add_problem(line, e.field, "The beginning is longer than what is offered [6.6]")
  end
  offer.beginning = values
end

local function close_offer(stream)
  stream.offer = nil
  stream.block = nil
end

local ends = {
  busy = true, long = true, failed = true, text = true, other = true, name = true, space = true,
  declined = true, timeout = true, early = true, checksum = true, stopped = true, cancelled = true,
}

local function read_no(stream, request, line)
  local is_the_last = ends[line.reason] or (stream.offer and line.reason == "syntax")
  if is_the_last then
    line.is_the_last = true
    stream.is_over = true
  end
  if request and (request.verb == "OFFER" or request.verb == "END") then close_offer(stream) end
  if request and request.verb == "STOP" then close_offer(stream) end
end

local function read_ok(stream, request, line)
  if request.is_announcement then return read_introduction(stream, request, line) end
  if request.verb == "OFFER" and stream.offer then return accept_offer(stream.offer, line) end
  if request.verb ~= "END" then return end
  close_offer(stream)
  if request.status == 0 then add_problem(line, e.order, "An OK, though the checksum is wrong [6.4]") end
end

local function read_acceptor(stream, line)
  if stream.is_over then add_problem(line, e.order, "There was a NO already that ends the connection [7]") end
  local request = table.remove(stream.waiting, 1)
  -- During an offer or a transfer a NO may come at any time; it is about the offer.
  local is_early_no = not request and stream.offer and line.reply == "NO"
  if is_early_no then request = stream.offer.request end
  if request then match(request, line) end
  if has_problems(line) then return end
  if line.reply == "NO" then
    read_no(stream, request, line)
  elseif request then
    read_ok(stream, request, line)
  end
  local is_busy = line.reason == "busy" and stream.requests == 0
  if request or is_busy then return end
  add_problem(line, e.order, "A reply to no request [5.1]")
end

-- ============================================================================
-- The stream, cut into lines and blocks
-- ============================================================================

-- On the first pass: the piece that begins at `offset`, and its size. Nothing, and how many bytes
-- are missing, where more has to come.
local function next_piece(stream, is_opener, bytes)
  if stream.is_lost and is_opener then return {skipped = #bytes, size = #bytes} end
  local block = is_opener and stream.block
  if block then
    if #bytes < block.size then return nil, block.size - #bytes end
    stream.block = nil
    return {block = block, size = block.size}
  end
  local line_end = bytes:find("\n", 1, true)
  if not line_end and #bytes > most.line + 1 then
    return {is_endless = true, size = #bytes}
  end
  if not line_end then return nil, DESEGMENT_ONE_MORE_SEGMENT end
  return {text = bytes:sub(1, line_end - 1):gsub("\r$", ""), size = line_end}
end

local function read_block(block, bytes)
  local offer = block.offer
  local data = bytes:sub(1, block.size)
  add_to_checksum(offer, data)
  offer.position = offer.position + block.size
  local content = offer.content
  if not content then return end
  content.size = content.size + block.size
  if content.bytes then content.bytes:append(ByteArray.new(data, true)) end
end

local function read_line(stream, is_opener, text, pinfo)
  local line = is_opener and read_request(text) or read_reply(text)
  note_where(line, pinfo)
  if #text > most.line then add_problem(line, e.form, "A line has 4,096 bytes at most [2.2]") end
  if is_opener then read_opener(stream, line)
  else read_acceptor(stream, line)
  end
  return line
end

local function read_endless(stream, bytes, pinfo)
  local line = new_line(bytes:sub(1, most.line))
  note_where(line, pinfo)
  add_problem(line, e.form, "A line has 4,096 bytes at most [2.2]")
  stream.is_lost = true
  return line
end

local function read_piece(stream, is_opener, bytes, pinfo)
  local piece, missing = next_piece(stream, is_opener, bytes)
  if not piece then return nil, missing end
  if piece.block then read_block(piece.block, bytes) end
  if piece.text then piece.line = read_line(stream, is_opener, piece.text, pinfo) end
  if piece.is_endless then piece.line = read_endless(stream, bytes, pinfo) end
  return piece
end

-- ============================================================================
-- Showing it
-- ============================================================================

local is_uint64 = {
  [f.every] = true, [f.number] = true, [f.size] = true, [f.files] = true, [f.offset] = true,
  [f.entries] = true, [f.missing] = true, [f.crc] = true,
}

local function show_part(tree, range, part)
  local size = math.min(#part.bytes, range:len() - part.offset)
  if size <= 0 then return end
  local its = range(part.offset, size)
  if is_uint64[part.field] then
    if is_size(part.bytes) then tree:add(part.field, its, to_uint64(part.bytes)) end
  elseif part.field == f.ip then
    tree:add(part.field, its, Address.ip(part.bytes))
  elseif part.field == f.port then
    tree:add(part.field, its, tonumber(part.bytes))
  else
    tree:add(part.field, its, its:string(ENC_UTF_8))
  end
end

local function show_problems(tree, line)
  for _, problem in ipairs(line.problems) do
    tree:add_proto_expert_info(problem.kind, problem.text)
    tree:add(f.breach, problem.text):set_generated()
  end
  for _, remark in ipairs(line.remarks) do
    tree:add_proto_expert_info(e.remark, remark)
  end
  if line.reply == "NO" then tree:add_proto_expert_info(e.refused, "The request was refused: " .. line.bytes) end
end

local function show_matches(tree, line)
  if line.reply_in then tree:add(f.reply_in, line.reply_in):set_generated() end
  if line.request_in then tree:add(f.request_in, line.request_in):set_generated() end
  if line.time then
    local seconds = math.floor(line.time)
    local nanoseconds = math.floor((line.time - seconds) * 1e9 + 0.5)
    tree:add(f.time, NSTime(seconds, nanoseconds)):set_generated()
  end
end

local function show_content(tree, content)
  if not content.bytes then return end
  local block = content.bytes:tvb(last_component(content.name))
  local item = tree:add(f.content, block:range())
  local from = content.from and ", from byte " .. content.from .. " on" or ""
  item:set_text("Content of " .. content.name .. ": " .. content.size .. " bytes" .. from)
  item:set_generated()
end

local function show_checksum(tree, line)
  if not line.status then return end
  tree:add(f.computed, line.computed):set_generated()
  tree:add(f.status, line.status):set_generated()
end

-- What it says, in the list of packets.
local function summary(line)
  local values = line.values
  if line.is_reply then
    local text = line.bytes:sub(1, 60)
    if line.is_announcement then text = "OK HERE " .. (values.name or "") end
    return text .. (line.answers and "  (to " .. line.answers .. ")" or "")
  end
  if not line.is_announcement then return line.bytes:sub(1, 80) end
  local text = line.verb .. " " .. (values.name or "") .. " " .. (values.group or "")
  text = text .. " " .. (values.ip or "") .. ":" .. (values.port or "")
  if values.to then text = text .. " to=" .. values.to end
  if values.ask then text = text .. " ask=" .. values.ask end
  if values.every then text = text .. " every=" .. values.every end
  return text
end

local function printable(text)
  return is_text(text) and text or text:gsub("[^\32-\126]", ".")
end

local function show_summary(pinfo, text)
  pinfo.cols.protocol = "ChatByP2P"
  local is_first = pinfo.private.chatbyp2p == nil
  pinfo.private.chatbyp2p = "shown"
  pinfo.cols.info:set((is_first and "" or " | ") .. printable(text))
  pinfo.cols.info:fence()
end

local function show_line(tree, range, line, pinfo)
  local text = summary(line)
  local item = tree:add(chat, range, "ChatByP2P, " .. printable(text))
  local without_end = range(0, math.min(#line.bytes, range:len()))
  item:add(f.line, without_end, without_end:string(ENC_UTF_8))
  for _, part in ipairs(line.parts) do show_part(item, range, part) end
  show_matches(item, line)
  show_checksum(item, line)
  if line.content then show_content(item, line.content) end
  show_problems(item, line)
  show_summary(pinfo, text)
end

local function show_block(tree, range, block, pinfo)
  local last = block.offset + block.size
  local text = block.size .. " bytes of " .. block.offer.name .. ", to " .. last .. " of " .. block.offer.size
  local item = tree:add(chat, range, "ChatByP2P, " .. printable(text))
  item:add(f.file, block.offer.name):set_generated()
  item:add(f.data, range)
  show_summary(pinfo, text)
end

local function show_skipped(tree, range, pinfo)
  local item = tree:add(chat, range, "ChatByP2P, not dissected")
  item:add(f.skipped, range)
  item:add_proto_expert_info(e.remark, "What comes after such a breach may be anything")
  show_summary(pinfo, range:len() .. " bytes after a breach")
end

local function show_piece(tree, tvb, offset, piece, pinfo)
  local range = tvb(offset, piece.size)
  if piece.line then show_line(tree, range, piece.line, pinfo) end
  if piece.block then show_block(tree, range, piece.block, pinfo) end
  if piece.skipped then show_skipped(tree, range, pinfo) end
end

-- ============================================================================
-- Wireshark calls
-- ============================================================================

function chat.init()
  datagrams = {}
  hellos = {}
  streams = {}
  pieces = {}
end

-- A datagram within an ICMP error is shown, and is not counted as said once more.
local function dissect_datagram(tvb, pinfo, tree)
  local bytes = tvb:raw()
  local line = datagrams[pinfo.number]
  if pinfo.in_error_pkt then
    line = read_request(bytes)
  elseif not line then
    line = read_datagram(bytes, pinfo)
    datagrams[pinfo.number] = line
  end
  show_line(tree, tvb(), line, pinfo)
end

-- Wireshark hands out the bytes of a direction in their order: a segment, or, where we have asked for
-- more, what was left over together with what came.
local function dissect_stream(tvb, pinfo, tree)
  local stream = stream_of(pinfo)
  local all = tvb:raw()
  local offset = 0
  while offset < tvb:len() do
    local bytes = all:sub(offset + 1)
    local where = pinfo.number .. "/" .. tvb:len() .. "/" .. offset .. "/" .. bytes:sub(1, 40)
    local piece, missing = pieces[where], nil
    if not piece and not pinfo.visited then
      piece, missing = read_piece(stream, is_openers(stream, pinfo, bytes), bytes, pinfo)
      pieces[where] = piece
    end
    if not piece then
      pinfo.desegment_offset = offset
      pinfo.desegment_len = missing or DESEGMENT_ONE_MORE_SEGMENT
      return
    end
    show_piece(tree, tvb, offset, piece, pinfo)
    offset = offset + piece.size
  end
end

function chat.dissector(tvb, pinfo, tree)
  if tvb:len() > 0 then dissect_datagram(tvb, pinfo, tree) end
  return tvb:len()
end

function over_tcp.dissector(tvb, pinfo, tree)
  local is_ours = tvb:len() > 0 and not pinfo.in_error_pkt
  if is_ours then dissect_stream(tvb, pinfo, tree) end
  return tvb:len()
end

-- On other ports: whatever begins with the word.
local function looks_like_ours(tvb)
  return tvb:len() >= #word and begins_with_word(tvb(0, #word):raw())
end

local function take_datagram(tvb, pinfo, tree)
  if not looks_like_ours(tvb) then return false end
  chat.dissector(tvb, pinfo, tree)
  return true
end

-- What follows on that connection is ours, too.
local function take_stream(tvb, pinfo, tree)
  if not looks_like_ours(tvb) then return false end
  pinfo.conversation = over_tcp
  over_tcp.dissector(tvb, pinfo, tree)
  return true
end

DissectorTable.get("udp.port"):add(shared_port, chat)
DissectorTable.get("udp.port"):add(own_ports, chat)
DissectorTable.get("tcp.port"):add(own_ports, over_tcp)
chat:register_heuristic("udp", take_datagram)
over_tcp:register_heuristic("tcp", take_stream)
