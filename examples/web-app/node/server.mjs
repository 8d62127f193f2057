// The back end in Node: minio-js and the standard library.
//
// It lists, signs and deletes; the bytes of files never pass through it. Everything it needs to know of the store is in
// the Secret of the Tenant's user, as environment variables: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY, AWS_REGION; where the store has TLS of its own, NODE_EXTRA_CA_CERTS names its ca.crt.
//
//   BUCKET          uploads
//   PUBLIC_S3_URL   the store as browsers reach it, where that is another address than the back end's
//   PORT            8080

import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { basename, extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as Minio from 'minio'

const BUCKET = process.env.BUCKET ?? 'uploads'
const LINK_SECONDS = 600
const MAX_REQUEST_BYTES = 64 * 1024
const PAGE = process.env.PAGE ?? fileURLToPath(new URL('../page', import.meta.url))
const TYPES = { '.html': 'text/html; charset=utf-8', '.css': 'text/css', '.js': 'text/javascript' }

function client(endpoint) {
  const url = new URL(endpoint)
  const useSSL = url.protocol === 'https:'
  return new Minio.Client({
    endPoint: url.hostname,
    port: Number(url.port || (useSSL ? 443 : 80)),
    useSSL,
    accessKey: process.env.AWS_ACCESS_KEY_ID,
    secretKey: process.env.AWS_SECRET_ACCESS_KEY,
    region: process.env.AWS_REGION ?? 'us-east-1',
    pathStyle: true,
  })
}

const store = client(process.env.AWS_ENDPOINT_URL_S3)
const signer = client(process.env.PUBLIC_S3_URL || process.env.AWS_ENDPOINT_URL_S3)

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status }
}

async function listFiles() {
  const files = []
  for await (const entry of store.listObjectsV2(BUCKET, '', true)) {
    files.push({ name: entry.name, size: entry.size, modified: entry.lastModified.toISOString() })
  }
  return files.sort((a, b) => b.modified.localeCompare(a.modified))
}

async function startUpload(request) {
  const pieces = []
  let size = 0
  for await (const piece of request) {
    size += piece.length
    if (size > MAX_REQUEST_BYTES) throw new Refused(400, 'that is too long')
    pieces.push(piece)
  }
  let wanted
  try { wanted = JSON.parse(Buffer.concat(pieces)) } catch { throw new Refused(400, 'that is no JSON') }
  const name = wanted?.name
  if (typeof name !== 'string' || !name || Buffer.byteLength(name) > 1024 || name.includes('/')) {
    throw new Refused(400, 'that is no name for a file')
  }
  return { url: await signer.presignedPutObject(BUCKET, name, LINK_SECONDS) }
}

function fileLink(name, save) {
  const disposition = `attachment; filename*=UTF-8''${encodeURIComponent(name)}`
  return signer.presignedGetObject(BUCKET, name, LINK_SECONDS, save ? { 'response-content-disposition': disposition } : {})
}

async function api(request, address) {
  const file = address.pathname.match(/^\/api\/files\/([^/]+)(\/link)?$/)
  switch (`${request.method} ${file ? `/api/files/*${file[2] ?? ''}` : address.pathname}`) {
    case 'GET /api/about': return { backend: 'Node, minio-js', bucket: BUCKET }
    case 'GET /api/files': return listFiles()
    case 'POST /api/uploads': return startUpload(request)
    case 'GET /api/files/*/link':
      return { url: await fileLink(decodeURIComponent(file[1]), address.searchParams.has('save')) }
    case 'DELETE /api/files/*': await store.removeObject(BUCKET, decodeURIComponent(file[1])); return null
    default: throw new Refused(404, 'no such request')
  }
}

async function page(path) {
  const name = path === '/' ? 'index.html' : basename(path)
  if (path !== '/' && path !== `/${name}` || !(extname(name) in TYPES)) throw new Refused(404, 'no such page')
  try {
    return [await readFile(`${PAGE}/${name}`), TYPES[extname(name)]]
  } catch { throw new Refused(404, 'no such page') }
}

const server = createServer(async (request, response) => {
  let status = 200, body, kind = 'application/json'
  try {
    const address = new URL(request.url, 'http://here')
    if (address.pathname.startsWith('/api/')) {
      const value = await api(request, address)
      if (value === null) status = 204
      else body = JSON.stringify(value)
    } else {
      [body, kind] = await page(address.pathname)
    }
  } catch (error) {
    status = error.status ?? (error instanceof URIError ? 400 : 502)
    body = JSON.stringify({ error: error instanceof Refused ? error.message : `the store: ${error.message}` })
  }
  response.writeHead(status, body === undefined ? {} : { 'content-type': kind }).end(body)
  console.log(`${request.method} ${request.url} ${status}`)
})
server.listen(Number(process.env.PORT ?? 8080), () => console.log(`http://localhost:${server.address().port}`))
