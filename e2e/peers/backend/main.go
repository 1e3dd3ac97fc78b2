// Backend serves HTTP/1.1 on port 8080 and writes a line of JSON for each request that came whole: method, target, body.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

func main() {
	var one sync.Mutex
	seen := json.NewEncoder(os.Stdout)
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		one.Lock()
		defer one.Unlock()
		if err := seen.Encode([]string{r.Method, r.RequestURI, string(body)}); err != nil {
			log.Fatal(err)
		}
		_, _ = io.WriteString(w, "go")
	}
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(answer)))
}
