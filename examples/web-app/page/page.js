// Files go from here to the store and back by presigned URLs: the back end only says yes and signs.

const find = (id) => document.getElementById(id)
const COLOURS = ['#1f6feb', '#8250df', '#bf3989', '#bc4c00', '#1a7f37', '#0e7490']
const PICTURES = /\.(avif|gif|jpe?g|png|svg|webp)$/i

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method, headers: body && { 'content-type': 'application/json' }, body: body && JSON.stringify(body),
  })
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `the back end answered ${answer.status}`)
  return answer.status === 204 ? null : answer.json()
}

function tell(problem) {
  find('problem').hidden = !problem
  find('problem').textContent = problem ? `${problem.message ?? problem}` : ''
}

function size(bytes) {
  const units = ['bytes', 'KB', 'MB', 'GB', 'TB']
  let step = 0
  while (bytes >= 1000 && step < units.length - 1) { bytes /= 1000; step += 1 }
  return `${step && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[step]}`
}

// --- sending

// XMLHttpRequest, because fetch does not tell how much was sent.
function put(url, file, type, progressed) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('PUT', url)
    request.setRequestHeader('content-type', type)
    request.upload.onprogress = (event) => progressed(event.loaded / Math.max(event.total, 1))
    request.onload = () => request.status === 200 ? resolve(request.getResponseHeader('ETag'))
      : reject(new Error(`the store answered ${request.status}`))
    request.onerror = () => reject(new Error('the store was not reached, or does not let this page in (CORS)'))
    request.send(file)
  })
}

async function upload(file) {
  const row = document.createElement('li')
  const bar = document.createElement('progress')
  bar.value = 0
  row.append(`${file.name} · ${size(file.size)}`, bar)
  find('uploads').append(row)
  try {
    const type = file.type || 'application/octet-stream'
    const { url } = await ask('POST', '/api/uploads', { name: file.name, type })
    await put(url, file, type, (share) => { bar.value = share })
    row.remove()
  } catch (error) {
    bar.remove()
    row.className = 'failed'
    row.append(`: ${error.message}`)
  }
}

async function send(files) {
  tell(null)
  await Promise.all([...files].map(upload))
  find('chooser').value = ''
  await show()
}

// --- what is there

const link = async (name, save) =>
  (await ask('GET', `/api/files/${encodeURIComponent(name)}/link${save ? '?save=yes' : ''}`)).url

async function download(name) {
  const anchor = document.createElement('a')
  anchor.href = await link(name, true)
  anchor.download = name
  anchor.click()
}

function button(text, action, kind = '') {
  const made = document.createElement('button')
  made.textContent = text
  made.className = kind
  made.onclick = () => action().catch(tell)
  return made
}

function row(file) {
  const item = document.createElement('li')
  item.dataset.name = file.name
  const kind = document.createElement('span')
  kind.className = 'kind'
  const ending = file.name.includes('.') ? file.name.split('.').pop().slice(0, 4) : 'file'
  kind.textContent = ending
  kind.style.background = COLOURS[[...ending].reduce((sum, sign) => sum + sign.codePointAt(0), 0) % COLOURS.length]
  if (PICTURES.test(file.name)) {
    link(file.name).then((url) => { kind.innerHTML = ''; kind.append(Object.assign(new Image(), { src: url, alt: '' })) }).catch(tell)
  }
  const text = document.createElement('div')
  const name = Object.assign(document.createElement('span'), { className: 'name', textContent: file.name, title: file.name })
  const facts = document.createElement('span')
  facts.className = 'facts'
  facts.textContent = `${size(file.size)} · ${new Date(file.modified).toLocaleString()}`
  text.append(name, facts)
  text.style.minWidth = 0
  const actions = document.createElement('div')
  actions.className = 'actions'
  actions.append(
    button('Download', () => download(file.name), 'download'),
    button('Delete', async () => { await ask('DELETE', `/api/files/${encodeURIComponent(file.name)}`); await show() }, 'delete'),
  )
  item.append(kind, text, actions)
  return item
}

async function show() {
  const files = await ask('GET', '/api/files')
  find('files').replaceChildren(...files.map(row))
  find('empty').hidden = files.length > 0
  find('count').textContent = files.length === 0 ? 'No files' : files.length === 1 ? '1 file' : `${files.length} files`
  find('total').textContent = files.length ? size(files.reduce((sum, file) => sum + file.size, 0)) : ''
}

// --- the page

const drop = find('drop')
find('chooser').onchange = (event) => send(event.target.files).catch(tell)
drop.onkeydown = (event) => { if (event.key === 'Enter' || event.key === ' ') find('chooser').click() }
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add('over') }
drop.ondragleave = () => drop.classList.remove('over')
drop.ondrop = (event) => {
  event.preventDefault()
  drop.classList.remove('over')
  send(event.dataTransfer.files).catch(tell)
}
ask('GET', '/api/about').then((about) => { find('about').textContent = `${about.backend} → bucket ${about.bucket}` }).catch(tell)
show().catch(tell)
